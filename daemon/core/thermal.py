"""A board's temperature as two stages, identified on line from its own readings: what it will be under a planned power, and
what power holds a limit. Pure.

    die:   C1 dT1/dt = P - (T1 - T2) / R1
    sink:  C2 dT2/dt = (T1 - T2) / R1 - (T2 - T0) / R2

P is watts above idle, so T0 is where the board would come to rest idle: room, enclosure, idle watts and their leakage in one
slow state. Leakage that grows with the die's temperature acts like a larger R2 and is learnt as such, a fan like a smaller
one; the air of an enclosure is a drift of T0. State and the logarithms of the four constants are estimated together by an
extended Kalman filter (Jazwinski 1970, ch. 8). A sensor counts in steps much coarser than its noise, so a reading says "in
this interval": the update takes the moments of the Gaussian cut to it (Curry 1970, ch. 2). Constants drift back to where
the filter started when nothing is learnt, so no variance grows without end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DIE, SINK, REST, R1, C1, R2, C2 = range(7)
_N = 7
_FREEDOM = (0.35, 0.35, 0.5, 0.6)
"""Standard deviation of each constant's logarithm before anything is learnt."""
BOUND = 2.0
"""No constant leaves e^-2 to e^2 times where it started."""
_LARGER, _QUICKEST_S = 2.0, 10.0
"""A sink stores at least so many times what its die does, and takes at least so long to cool."""
_FORGET_S = (100 * 3600.0, 100 * 3600.0, 4 * 3600.0, 100 * 3600.0)
"""Time in which a constant that nothing confirms drifts back: fan and dust change R2 alone."""
_JITTER_K = (0.04, 0.02)
"""What the two stages do beyond the model, K per root second."""
_FINE_K = 0.4
"""Sensor steps up to this show what the two stages do."""
_DRIFT_K = 0.03
"""How the room wanders, K per root second."""
_CALM = 0.25
_MEMORY = 0.25
_AGILE_K = (0.1, 3.0)
"""How far sink and T0 may wander once the readings have surprised for some seconds."""
_STEP_S = 1.0
"""The longest step of the integration."""


@dataclass(frozen=True)
class Constants:
    """Resistances in K/W, capacities in J/K: die to sink, sink to air."""

    r1: float
    c1: float
    r2: float
    c2: float


class Thermal:
    """The filter. Everything is in C, K, W, J and seconds; watts are above idle."""

    def __init__(self, start: Constants, temp_c: float, unseen: bool = False, known: bool = False):
        """`temp_c`: where the board is now, taken as idle but not trusted to be. unseen: that is a guess. known: the constants
        were learnt before."""
        self.start = tuple(math.log(v) for v in (start.r1, start.c1, start.r2, start.c2))
        self.sd = tuple(0.4 * f if known else f for f in _FREEDOM)
        self.x = [temp_c, temp_c, temp_c, *self.start]
        spread = (1.0, 3.0, 8.0, *self.sd)
        self.p = [[spread[i] ** 2 if i == j else 0.0 for j in range(_N)] for i in range(_N)]
        if unseen:
            for i in range(3):
                for j in range(3):
                    self.p[i][j] += 100.0  # all three alike
        self.coarse = 1.0
        """What the model does by itself counts for this much more where the readings show little of it."""
        self.surprise = 0.0
        """Running mean of how many standard deviations the readings lie above the prediction."""

    def copy(self) -> Thermal:
        """Another one in the same state."""
        out = object.__new__(Thermal)
        out.start, out.sd, out.surprise, out.coarse = self.start, self.sd, self.surprise, self.coarse
        out.x, out.p = self.x[:], [row[:] for row in self.p]
        return out

    def begun(self, temp_c: float) -> Thermal:
        """The same constants on a board whose first reading has come."""
        out = self.copy()
        out.x[:3] = [temp_c] * 3
        for i, sd in enumerate((1.0, 3.0, 8.0)):
            for j in range(_N):
                out.p[i][j] = out.p[j][i] = 0.0
            out.p[i][i] = sd * sd
        return out

    def moved(self, temp_c: float) -> Thermal:
        """Another one with the same constants on a board that is found at `temp_c` against all expectation."""
        out = self.copy()
        shift = temp_c - self.x[DIE]
        for i, sd in ((DIE, 1.0), (SINK, 4.0), (REST, 10.0)):
            out.x[i] += shift
            for j in range(_N):
                out.p[i][j] = out.p[j][i] = 0.0
            out.p[i][i] = sd * sd
        out.surprise = 0.0
        return out

    @property
    def die_c(self) -> float:
        return self.x[DIE]

    @property
    def rest_c(self) -> float:
        """Where the board would come to rest idle."""
        return self.x[REST]

    @property
    def die_sd(self) -> float:
        """Standard deviation of the die's temperature, K."""
        return math.sqrt(max(self.p[DIE][DIE], 0.0))

    @property
    def constants(self) -> Constants:
        r1, c1, r2, c2 = (math.exp(v) for v in self.x[3:])
        return Constants(r1, c1, r2, c2)

    def predict(self, dt: float, watts: float, seen: bool = True) -> None:
        """Goes on by `dt` under a mean of `watts`. seen: readings are being believed, so that surprises may be followed."""
        left = dt
        while left > 1e-9:
            h = min(left, _STEP_S)
            self._step(h, watts, seen)
            left -= h

    def _step(self, h: float, watts: float, seen: bool) -> None:
        x, p = self.x, self.p
        k = self.constants
        fast = h / (k.r1 * k.c1)
        a = math.exp(-fast)
        rise = k.r1 * watts
        gap = x[DIE] - x[SINK] - rise
        die = x[SINK] + rise + gap * a
        # What does not stay in the die goes into the sink, which relaxes to where that would bring it.
        slow = h / (k.r2 * k.c2)
        b, heat = math.exp(-slow), watts - k.c1 * (die - x[DIE]) / h
        far = x[REST] + k.r2 * heat - x[SINK]
        sink, db = x[SINK] + (1 - b) * far, far * b * slow
        da = gap * a * fast
        f1 = (a, 1 - a, 0.0, rise * (1 - a) + da, da, 0.0, 0.0)
        to = -(1 - b) * k.r2 * k.c1 / h  # of the die's rise into the sink's
        f2 = (
            to * (f1[DIE] - 1),
            b + to * f1[SINK],
            1 - b,
            to * f1[R1],
            to * (die - x[DIE] + f1[C1]),
            (1 - b) * k.r2 * heat - db,
            -db,
        )
        # F P F', where F is the identity but for its first two rows.
        r1 = [sum(f * row[j] for f, row in zip(f1, p)) for j in range(_N)]
        r2 = [sum(f * row[j] for f, row in zip(f2, p)) for j in range(_N)]
        p11 = sum(f * v for f, v in zip(f1, r1))
        p12 = sum(f * v for f, v in zip(f2, r1))
        p22 = sum(f * v for f, v in zip(f2, r2))
        for j in range(2, _N):
            p[DIE][j] = p[j][DIE] = r1[j]
            p[SINK][j] = p[j][SINK] = r2[j]
        agile = min(1.0, max(0.0, abs(self.surprise) - _CALM)) if seen else 0.0
        p[DIE][DIE], p[DIE][SINK], p[SINK][DIE], p[SINK][SINK] = (
            p11 + h * (self.coarse * _JITTER_K[0]) ** 2,
            p12,
            p12,
            p22 + h * (self.coarse * _JITTER_K[1] + agile * _AGILE_K[0]) ** 2,
        )
        p[REST][REST] += h * (_DRIFT_K + agile * _AGILE_K[1]) ** 2
        x[DIE], x[SINK] = die, sink
        # Constants: a slow drift back to where they started, with the noise that keeps the spread they started with.
        for i, forget in zip(range(R1, _N), _FORGET_S):
            keep = 1 - h / forget
            x[i] = self.start[i - R1] + keep * (x[i] - self.start[i - R1])
            for j in range(_N):
                p[i][j] *= keep
                p[j][i] *= keep
            p[i][i] += 2 * h / forget * self.sd[i - R1] ** 2

    def correct(self, temp_c: float, step: float, noise: float) -> None:
        """A reading that is believed: rounded to multiples of `step`, with `noise` (standard deviation) before that."""
        x, p = self.x, self.p
        self.coarse = max(1.0, step / _FINE_K)
        s = p[DIE][DIE] + noise * noise
        root = math.sqrt(s)
        mean, var = _cut((temp_c - step / 2 - x[DIE]) / root, (temp_c + step / 2 - x[DIE]) / root)
        gain = [p[DIE][i] / s for i in range(_N)]
        for i in range(_N):
            x[i] += gain[i] * mean * root
        shrink = s * (1 - var)
        for i in range(_N):
            for j in range(i, _N):
                p[i][j] -= gain[i] * gain[j] * shrink
                p[j][i] = p[i][j]
        for i in range(_N):
            p[i][i] = max(p[i][i], 1e-9)
        for i in range(R1, _N):
            x[i] = min(self.start[i - R1] + BOUND, max(self.start[i - R1] - BOUND, x[i]))
        # A sink is larger than its die, and slow: anything else is no such board.
        x[C2] = max(x[C2], x[C1] + math.log(_LARGER), math.log(_QUICKEST_S) - x[R2])
        self.surprise += _MEMORY * (mean - self.surprise)

    def chance(self, temp_c: float, step: float, noise: float) -> float:
        """How likely a sensor that works shows this, 0 to 1."""
        root = math.sqrt(self.p[DIE][DIE] + noise * noise)
        return _phi((temp_c + step / 2 - self.x[DIE]) / root) - _phi((temp_c - step / 2 - self.x[DIE]) / root)

    @property
    def state(self) -> tuple[float, float]:
        """Die and sink, C."""
        return self.x[DIE], self.x[SINK]

    def holds(self, limit_c: float, seconds: float, state: tuple[float, float] | None = None) -> float:
        """The constant watts that bring the die to `limit_c` in `seconds`; below 0 where even idle is too hot."""
        idle = self.advance(state or self.state, seconds, 0.0)[0]
        return (limit_c - idle) / max(1e-6, self.advance(state or self.state, seconds, 1.0)[0] - idle)

    def steady(self, watts: float) -> tuple[float, float]:
        """(die, sink) in the end, under constant `watts`."""
        k, rest = self.constants, self.x[REST]
        return rest + (k.r1 + k.r2) * watts, rest + k.r2 * watts

    def advance(self, state: tuple[float, float], seconds: float, watts: float) -> tuple[float, float]:
        """(die, sink) after `seconds` of constant `watts`."""
        k = self.constants
        die, sink = state
        n = max(1, math.ceil(seconds / max(_STEP_S, seconds / 200)))
        h = seconds / n
        a, b = math.exp(-h / (k.r1 * k.c1)), math.exp(-h / (k.r2 * k.c2))
        for _ in range(n):
            new = sink + k.r1 * watts + (die - sink - k.r1 * watts) * a
            far = self.x[REST] + k.r2 * (watts - k.c1 * (new - die) / h)
            die, sink = new, far + (sink - far) * b
        return die, sink


def _phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _cut(low: float, high: float) -> tuple[float, float]:
    """Mean and variance of a standard Gaussian cut to [low, high]."""
    if high - low < 0.05:
        return (low + high) / 2, (high - low) ** 2 / 12
    if low + high > 0:  # the tail on the left is the one that can be computed
        mean, var = _cut(-high, -low)
        return -mean, var
    if high < -6:
        return high, 0.0
    z = _phi(high) - _phi(low)
    d_low, d_high = (math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in (low, high))
    mean = (d_low - d_high) / z
    return mean, max(0.0, 1 + (low * d_low - high * d_high) / z - mean * mean)
