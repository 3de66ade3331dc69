"""What a load really draws: a calibration's watts, corrected by what the rail shows. Pure.

A clock cap c takes c * v(c)^2 of the full dynamic power, with a voltage that falls in a line to `v_floor` of its full value
(CMOS: P = C V^2 f). Idle watts, the calibration's error and v_floor are learnt together from the rail by a Kalman filter;
without a rail the calibration is taken at its word, and the thermal model learns in its watts.
"""

from __future__ import annotations

import math

_IDLE, _SCALE, _FLOOR = range(3)
_BOUNDS = ((0.0, math.inf), (0.5, 2.0), (0.3, 1.0))
_WANDER = (0.02, 0.0005, 0.0003)
"""Per root second: idle watts (leakage, fan, what else runs), the calibration's error, the voltage."""


def clock_power(clock: float, v_floor: float) -> float:
    """Dynamic power under a clock cap, as a share of that at full clock."""
    return clock * (v_floor + (1 - v_floor) * clock) ** 2


class Power:
    """idle_w, scale (real watts over calibrated ones) and v_floor, as learnt so far."""

    def __init__(self, idle_w: float, full_w: float, scale: float = 1.0, v_floor: float = 0.65):
        self.x = [idle_w, scale, v_floor]
        self.p = [[0.0] * 3 for _ in range(3)]
        for i, sd in enumerate((0.3 * idle_w, 0.15, 0.1)):
            self.p[i][i] = sd * sd
        self._noise = 0.02 * full_w

    @property
    def idle_w(self) -> float:
        return self.x[_IDLE]

    @property
    def scale(self) -> float:
        return self.x[_SCALE]

    def clock(self, clock: float) -> float:
        """Share of the dynamic power that a clock cap leaves."""
        return clock_power(clock, self.x[_FLOOR])

    def watts(self, busy_w: float, clock: float) -> float:
        """Real watts above idle of what is calibrated as `busy_w` at full clock."""
        return self.x[_SCALE] * busy_w * self.clock(clock)

    def observe(self, dt: float, rail_w: float, busy_w: float, clock: float) -> None:
        """What the rail showed while `busy_w` (calibrated, at full clock) ran under `clock`."""
        x, p = self.x, self.p
        for i, sd in enumerate(_WANDER):
            p[i][i] += dt * sd * sd
        volts = x[_FLOOR] + (1 - x[_FLOOR]) * clock
        share = clock * volts * volts
        h = (1.0, busy_w * share, x[_SCALE] * busy_w * clock * 2 * volts * (1 - clock))
        miss = rail_w - x[_IDLE] - x[_SCALE] * busy_w * share
        ph = [sum(p[i][j] * h[j] for j in range(3)) for i in range(3)]
        s = sum(a * b for a, b in zip(h, ph)) + self._noise**2
        if miss * miss > 25 * s:  # something else ran, or the rail is wrong: count it for little
            s *= miss * miss / (25 * s)
        for i in range(3):
            x[i] = min(_BOUNDS[i][1], max(_BOUNDS[i][0], x[i] + ph[i] / s * miss))
        self.p = [[p[i][j] - ph[i] * ph[j] / s for j in range(3)] for i in range(3)]
