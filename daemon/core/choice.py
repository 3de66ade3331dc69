"""Which (option, clock) pairs are worth running, and how a budget of watts is spent on them. Pure.

Time can be shared between pairs, so only the upper concave hull of rate over power counts, idle at (0, 0) included: what lies
below it is beaten by a mix of two neighbours at the same power. The slope of the hull at the power spent is the price of heat:
samples a second that one watt more would make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One operating point as `calibrate` measured it, per sample at full clock."""

    seconds: float
    watts: float
    """Above idle, while it runs."""
    quality: float
    """1: as good as the reference, 0: useless."""


@dataclass(frozen=True)
class Pair:
    """An option under a clock cap: samples a second and watts above idle while it runs. -1: nothing runs."""

    option: int
    clock: float
    rate: float
    watts: float

    @property
    def joules(self) -> float:
        """Of one sample."""
        return self.watts / self.rate


IDLE = Pair(-1, 1.0, 0.0, 0.0)
Watts = Callable[[float, float], float]
"""(watts at full clock, clock) -> real watts."""


def pairs(options: Sequence[Option], floor: float, clocks: Sequence[float], watts: Watts) -> list[Pair]:
    """Every option that is good enough under every clock; where none is, those of the best quality."""
    best = max((o.quality for o in options), default=0.0)
    least = min(floor, best) - 1e-9
    good = [(i, o) for i, o in enumerate(options) if o.quality >= least]
    return [Pair(i, c, c / max(o.seconds, 1e-9), max(1e-6, watts(o.watts, c))) for i, o in good for c in clocks]


def hull(candidates: Sequence[Pair]) -> list[Pair]:
    """The concave hull from idle on, in ascending watts; slopes fall from pair to pair."""
    out = [IDLE]
    for pair in sorted(candidates, key=lambda p: (p.watts, -p.rate)):
        if pair.rate <= out[-1].rate * (1 + 1e-9):
            continue
        while len(out) > 1 and slope(out[-2], out[-1]) <= slope(out[-1], pair):
            out.pop()
        out.append(pair)
    return out


def slope(a: Pair, b: Pair) -> float:
    """Samples per joule from one pair of the hull to the next."""
    return (b.rate - a.rate) / max(1e-12, b.watts - a.watts)


@dataclass(frozen=True)
class Mix:
    """`share` of the time in `high`, the rest in `low`, neighbours on the hull."""

    low: Pair
    high: Pair
    share: float

    @property
    def watts(self) -> float:
        return self.low.watts + self.share * (self.high.watts - self.low.watts)

    @property
    def rate(self) -> float:
        return self.low.rate + self.share * (self.high.rate - self.low.rate)

    @property
    def price(self) -> float:
        """Samples that one joule more would make; 0 where nothing faster is left."""
        return 0.0 if self.low is self.high else slope(self.low, self.high)


def spend(best: Sequence[Pair], watts: float) -> Mix:
    """The fastest mix of the hull within `watts`."""
    return _mix(best, watts, [p.watts for p in best])


def reach(best: Sequence[Pair], rate: float) -> Mix:
    """The most frugal mix of the hull that makes `rate`, or the fastest there is."""
    return _mix(best, rate, [p.rate for p in best])


def _mix(best: Sequence[Pair], value: float, at: Sequence[float]) -> Mix:
    if value >= at[-1]:
        return Mix(best[-1], best[-1], 1.0)
    i = next(i for i, v in enumerate(at) if v > value or i == len(at) - 1)
    i = max(1, i)
    share = (value - at[i - 1]) / max(1e-12, at[i] - at[i - 1])
    return Mix(best[i - 1], best[i], min(1.0, max(0.0, share)))
