"""What jobs of a model take, learnt from those that have run: a fixed part, and a part that grows with the work. Pure.

Least squares of seconds over work, the older the less it counts. Work is counted in whatever the caller likes (items, or
seconds by the calibration), as long as it is the same each time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_DECAY = 0.9
"""A job counts for a third of its weight after ten more."""
_DOUBT = 0.9


@dataclass
class Cost:
    """Sums over the jobs of one model: count, work, seconds, work squared, work times seconds; and how far off it was."""

    n: float = 0.0
    w: float = 0.0
    s: float = 0.0
    ww: float = 0.0
    ws: float = 0.0
    off: float = 0.0
    """By which share of the prediction jobs took longer, the largest lately."""
    least: float = 0.0
    """Seconds for a unit of work of the fastest job; 0 before the first one. Only this speaks for what cannot be done."""

    def seconds(self, work: float) -> float | None:
        """What so much work will take; None before the first job."""
        if self.n <= 0:
            return None
        mean_w, mean_s = self.w / self.n, self.s / self.n
        spread = self.ww / self.n - mean_w**2
        slope = (self.ws / self.n - mean_w * mean_s) / spread if spread > 1e-3 * mean_w**2 else 0.0
        if slope <= 0 or slope * mean_w > mean_s:  # all alike, or too noisy to tell: in proportion
            return mean_s * work / max(mean_w, 1e-9)
        return mean_s + slope * (work - mean_w)

    def fastest(self, work: float) -> float | None:
        """What so much work takes at least; None before the first job."""
        return self.least * work if self.least > 0 else None

    def doubt(self) -> None:
        """A job was refused for it, and so teaches nothing: what was measured once must not refuse all others for ever."""
        self.least *= _DOUBT

    def too_short(self, work: float, seconds: float) -> None:
        """A job was not done after so long."""
        if work > 0 and seconds > 0:
            self.least = max(self.least, seconds / work)
            if (expected := self.seconds(work)) is not None and expected < seconds:
                self.learn(work, seconds)

    def learn(self, work: float, seconds: float) -> None:
        """A job has run."""
        least = seconds / max(work, 1e-9)
        self.least = least if self.least <= 0 else min(self.least, least)
        expected = self.seconds(work)
        if expected is not None:
            self.off = max(0.8 * self.off, seconds / max(expected, 1e-9) - 1, 0.0)
        for name, value in (("n", 1.0), ("w", work), ("s", seconds), ("ww", work**2), ("ws", work * seconds)):
            setattr(self, name, _DECAY * getattr(self, name) + value)


def as_plain(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """JSON-able."""
    return {key: asdict(cost) for key, cost in costs.items()}


def from_plain(found: Any) -> dict[str, Cost]:
    """What an earlier run has learnt, as far as it is whole."""
    costs = {}
    for key, sums in found.items() if isinstance(found, Mapping) else ():
        names = [f.name for f in fields(Cost)]
        values = [sums.get(name) for name in names] if isinstance(sums, Mapping) else []
        whole = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v) and v >= 0]
        if len(whole) == len(names):
            costs[str(key)] = Cost(*whole)
    return costs
