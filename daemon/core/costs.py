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

    def learn(self, work: float, seconds: float) -> None:
        """A job has run."""
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
