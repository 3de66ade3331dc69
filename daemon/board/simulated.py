"""A board that is not there: heat, power, clock, fan, throttling and broken sensors of small gateways, for trials and tests.

Two stages as in docs/governor.md, and the air of an enclosure around them where the preset has one. Each stage is solved
exactly over a short step in which its neighbours stand still. All of the board's watts heat the die, leakage grows with it.
The presets' resistances, time constants and watts are fitted to public measurements (docs/governor.md tells which), their
fans and leakage are estimates.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...config import tree
from ..core.power import clock_power
from ..core.reading import Reading, Traits

Fault = Literal["missing", "stuck", "zero", "garbage", "spike", "kelvin", "millidegrees"]
_STEP_S = 0.25
_FAN_BACK_K = 5.0
"""A fan goes a level back so far below the point where it came on."""


@dataclass(frozen=True)
class Preset:
    """A board in figures. Temperatures in C, resistances in K/W, times in s, power in W."""

    kind: Literal["raspberry-pi", "jetson", "generic"]
    words: str
    idle_w: float
    full_w: float
    """Everything busy at the top clock, at 45 C."""
    die_k_per_w: float
    die_s: float
    sink_k_per_w: tuple[float, ...]
    """To the air around the board, one per fan level."""
    sink_s: float
    """At the first fan level."""
    throttle_c: float
    critical_c: float
    fan_c: tuple[float, ...] = ()
    """Where each further fan level comes on."""
    fan_w: float = 0.25
    case_k_per_w: float = 0.0
    """From the air in the enclosure to the room; 0: an open board."""
    case_s: float = 600.0
    leak_w: float = 0.3
    """Leakage at 45 C, a part of idle_w."""
    leak_per_k: float = 0.016
    v_floor: float = 0.65
    """Voltage at the slowest clock over that at the top."""
    clock_floor: float = 0.5
    sensor_step_k: float = 0.5
    sensor_noise_k: float = 0.1
    has_power: bool = False
    limit_w: float | None = None
    """Over-current protection acts above it."""


_PI5 = Preset("raspberry-pi", "Raspberry Pi 5, bare, still air", 2.7, 7.5, 2.0, 4.0, (8.0,), 180.0, 80.0, 110.0,
              clock_floor=0.625, sensor_step_k=0.55)  # fmt: skip
_NANO = Preset("jetson", "Orin Nano in its 15 W mode, fan", 4.2, 13.0, 0.7, 3.0, (2.6, 2.0), 160.0, 99.0, 104.5, fan_c=(60.0,),
               leak_w=0.5, sensor_step_k=0.03125, has_power=True, limit_w=25.0)  # fmt: skip
PRESETS: dict[str, Preset] = {
    "pi4": replace(_PI5, words="Raspberry Pi 4, bare, still air", full_w=6.0, die_s=5.0, sink_k_per_w=(9.0,), sink_s=200.0,
                   v_floor=0.7, clock_floor=0.4),
    "pi5": _PI5,
    "pi5-cooler": replace(_PI5, words="Raspberry Pi 5 with its active cooler", idle_w=2.9, full_w=8.0, die_k_per_w=1.5,
                          sink_k_per_w=(6.5, 5.0, 4.5, 4.2, 4.0), sink_s=110.0, fan_c=(50.0, 60.0, 67.5, 75.0)),
    "orin-nano-7w": replace(_NANO, words="Orin Nano in its 7 W mode, fanless box", idle_w=3.5, full_w=7.0, sink_k_per_w=(5.5,),
                            sink_s=500.0, fan_c=(), case_k_per_w=1.5, limit_w=12.0),
    "orin-nano": _NANO,
    "orin-nano-25w": replace(_NANO, words="Orin Nano in its 25 W mode, fan", idle_w=4.5, full_w=20.0, leak_w=0.7, limit_w=30.0),
    "orin-nano-box": replace(_NANO, words="Orin Nano in its 15 W mode, fanless box", sink_k_per_w=(2.8,), sink_s=600.0,
                             fan_c=(), case_k_per_w=0.8),
    "orin-nx": replace(_NANO, words="Orin NX in its 25 W mode, fan", idle_w=4.6, full_w=16.9, die_k_per_w=0.6,
                       sink_k_per_w=(2.3, 1.7), sink_s=200.0, leak_w=0.8, limit_w=38.0),
    "orin-nx-box": replace(_NANO, words="Orin NX in its 25 W mode, closed cabinet without a fan", idle_w=4.6, full_w=16.9,
                           die_k_per_w=0.6, sink_k_per_w=(2.7,), sink_s=600.0, fan_c=(), case_k_per_w=0.8, leak_w=0.8,
                           limit_w=38.0),
    "generic": Preset("generic", "a small fanless board", 3.0, 8.0, 1.5, 4.0, (6.0,), 150.0, 85.0, 105.0),
}  # fmt: skip


class SimulatedBoard:
    """A `Board`. Live it advances by itself at every `read`, `speedup` of its seconds per second, under what `load` says:
    busy share of the full dynamic power, 0 to 1. In simulation `step` does it, and `read` is given the same seconds."""

    def __init__(self, config: tree.Board | None = None, *, preset: Preset | str = "orin-nano", ambient_c: float = 25.0,
                 capped: bool = True, seed: int = 0):  # fmt: skip
        """capped: the clock may be capped. `config` names preset, ambient and speed where the daemon runs live."""
        self.live, self.speedup = config is not None, 1.0
        if config is not None:
            preset, ambient_c, self.speedup = config.preset, config.ambient_c, config.speedup
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"expected a simulated board of {', '.join(PRESETS)}, found '{preset}'")
        p = PRESETS[preset] if isinstance(preset, str) else preset
        self.preset, self.ambient_c = p, ambient_c
        self.load: Callable[[], float] = machine_load()
        self.sink_factor = 1.0
        """Above 1: dust, blocked vents."""
        self._random = random.Random(seed)
        self._capacities = (p.die_s / p.die_k_per_w, p.sink_s / p.sink_k_per_w[0], p.case_s / (p.case_k_per_w or 1.0))
        self.fan = 0
        self.case_c = ambient_c + p.idle_w * p.case_k_per_w
        self.sink_c = self.case_c + p.idle_w * p.sink_k_per_w[0]
        self.temp_c = self.sink_c + p.idle_w * p.die_k_per_w
        """The truth about the die; `read` tells what its sensor makes of it."""
        self.cap = self.grant = 1.0
        self.power_w, self.energy_j, self.off = p.idle_w, 0.0, False
        self.throttled, self.throttle_events, self.throttled_s, self.over_current_events = False, 0, 0.0, 0
        self.hottest_c = self.temp_c
        self._governed_s, self._average_w, self._over, self._before_c = 0.0, p.idle_w, False, self.temp_c
        self._fault: Fault | None = None
        self._frozen = 0.0
        self._at: float | None = None
        steps = (p.clock_floor + (1 - p.clock_floor) * i / 5 for i in range(6))
        clocks = tuple(round(c, 3) for c in steps) if capped else (1.0,)
        self.traits = Traits(
            "simulated", p.words, p.throttle_c, p.critical_c, p.has_power, clocks, p.idle_w, p.full_w, p.die_k_per_w, p.die_s,
            p.sink_k_per_w[-1] + p.case_k_per_w, p.sink_s, "a model" if p.has_power else "", p.limit_w,
        )  # fmt: skip

    @property
    def speed(self) -> float:
        """The clock now, as a share of the top one."""
        return 0.0 if self.off else min(self.cap, self.grant)

    # What a board does

    def read(self, now: float) -> Reading:
        """See `Board`."""
        if self.live and self._at is not None:
            self.step(max(0.0, now - self._at) * self.speedup, self.load())
        self._at = now
        temp, problems = self._sensor()
        return Reading(now, temp, {"die": temp}, self.power_w if self.preset.has_power else None, speed=self.speed,
                       throttled=self.throttled, throttle_events=self.throttle_events, under_voltage=False,
                       over_current_events=self.over_current_events,
                       fan=self.fan / len(self.preset.fan_c) if self.preset.fan_c else None, problems=problems)  # fmt: skip

    def cap_clock(self, share: float) -> str | None:
        """See `Board`."""
        if share < 1 and len(self.traits.clocks) == 1:
            return "this simulated board gives no right to cap clocks"
        self.cap = share
        return None

    def close(self) -> None:
        """The clock is free again."""
        self.cap = 1.0

    # What is done to it

    def fault(self, kind: Fault | None) -> None:
        """Breaks the temperature sensor from now on; None mends it."""
        self._fault, self._frozen = kind, self._shown()

    def step(self, dt: float, load: float) -> None:
        """Advances `dt` seconds under `load`: share of the full dynamic power that the work would take at the top clock."""
        load = min(1.0, max(0.0, load))
        n = max(1, math.ceil(dt / _STEP_S)) if dt > 0 else 0
        for _ in range(n):
            self._protect(dt / n)
            self._heat(dt / n, load)

    def _heat(self, h: float, load: float) -> None:
        p = self.preset
        leak = p.leak_w * (math.exp(p.leak_per_k * (min(self.temp_c, 150.0) - 45.0)) - 1)
        dynamic = (p.full_w - p.idle_w) * load * clock_power(self.speed, p.v_floor)
        self.power_w = 0.0 if self.off else p.idle_w + leak + dynamic + self.fan * p.fan_w
        c_die, c_sink, c_case = self._capacities
        r_sink = p.sink_k_per_w[min(self.fan, len(p.sink_k_per_w) - 1)] * self.sink_factor
        # Each stage relaxes towards what it would reach if the next one stood still; what it gives off heats the next.
        heat = self.power_w - self.fan * p.fan_w
        self.temp_c, out = _relax(self.temp_c, self.sink_c, heat, p.die_k_per_w, c_die, h)
        self.sink_c, out = _relax(self.sink_c, self.case_c, out, r_sink, c_sink, h)
        if p.case_k_per_w:
            self.case_c, _ = _relax(self.case_c, self.ambient_c, out, p.case_k_per_w, c_case, h)
        else:
            self.case_c = self.ambient_c
        self.energy_j += self.power_w * h
        self.hottest_c = max(self.hottest_c, self.temp_c)

    def _protect(self, h: float) -> None:
        """Fan, throttling and switching off, as the board's firmware or kernel does."""
        p, t = self.preset, self.temp_c
        while self.fan < len(p.fan_c) and t >= p.fan_c[self.fan]:
            self.fan += 1
        while self.fan and t < p.fan_c[self.fan - 1] - _FAN_BACK_K:
            self.fan -= 1
        if p.kind == "raspberry-pi":  # firmware: in proportion over five degrees, then hard
            hot = t >= p.throttle_c or (self.throttled and t >= p.throttle_c - 2.0)
            self.grant = (0.6 if t >= p.throttle_c + 5 else 0.95 - 0.06 * max(0.0, t - p.throttle_c)) if hot else 1.0
        else:  # the kernel's step_wise: a step deeper each second above the trip while it rises, a step back below
            self._governed_s += h
            if self._governed_s >= 1.0:
                self._governed_s -= 1.0
                if t >= p.throttle_c and t >= self._before_c:
                    self.grant = max(0.4, self.grant * 0.9)
                elif t < p.throttle_c - 3.0:
                    self.grant = min(1.0, self.grant / 0.9)
                self._before_c = t
        if p.limit_w is not None:
            self._average_w += (self.power_w - self._average_w) * min(1.0, h)
            over = self._average_w > p.limit_w * (0.95 if self._over else 1.0)
            self.over_current_events += over and not self._over
            self._over = over
            self.grant = min(self.grant, 0.7) if over else self.grant
        throttled = self.grant < 0.999
        self.throttle_events += throttled and not self.throttled
        self.throttled = throttled
        self.throttled_s += h * throttled
        self.off = self.off or t >= p.critical_c

    def _shown(self) -> float:
        step = self.preset.sensor_step_k
        return round(round((self.temp_c + self._random.gauss(0.0, self.preset.sensor_noise_k)) / step) * step, 3)

    def _sensor(self) -> tuple[float | None, dict[str, str]]:
        shown, fault = self._shown(), self._fault
        if fault == "missing":
            return None, {"temp_c": "no such device"}
        if fault == "garbage":
            return round(self._random.uniform(-20.0, 120.0), 3), {}
        broken = {"stuck": self._frozen, "zero": 0.0, "spike": 1e6, "kelvin": shown + 273.15, "millidegrees": shown * 1000}
        return (broken[fault] if fault else shown), {}


def _relax(temp_c: float, beyond_c: float, watts: float, resistance: float, capacity: float, h: float) -> tuple[float, float]:
    """(temperature after h, mean watts given off to what lies beyond)."""
    end = beyond_c + watts * resistance
    new = end + (temp_c - end) * math.exp(-h / (resistance * capacity))
    return new, watts - capacity * (new - temp_c) / h


def machine_load() -> Callable[[], float]:
    """A function that gives the busy share of this machine's cores since it was asked before; 0 where /proc does not say."""
    before = [0, 0]

    def load() -> float:
        try:
            first = Path("/proc/stat").read_text("ascii").split("\n", 1)[0]
        except OSError:
            return 0.0
        ticks = [int(v) for v in first.split()[1:9]]
        total, idle = sum(ticks), ticks[3] + ticks[4]
        share = 1 - (idle - before[1]) / max(1, total - before[0]) if before[0] else 0.0
        before[:] = total, idle
        return min(1.0, max(0.0, share))

    return load
