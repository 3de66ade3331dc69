"""How long a paced job rests after a step. Pure: the durations come in as arguments.

A duty of 0.25 is a quarter of the time at work: three times as long as the steps took is rested. Steps of a millisecond
add up before a rest is worth a wake-up of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHORTEST_S = 0.01


@dataclass
class Pace:
    """One job's balance of work and rest."""

    worked_s: float = 0.0
    """Since the last rest was over."""
    rested_s: float = 0.0
    """Of the rest that is due for it."""
    total_s: float = 0.0
    """Rested since the job began."""

    def worked(self, seconds: float) -> None:
        """A step is done."""
        self.worked_s += seconds

    def rested(self, seconds: float) -> None:
        """A part of a rest has passed."""
        self.rested_s += seconds
        self.total_s += seconds

    def due(self, duty: float) -> float:
        """Seconds still to rest before the next step; infinite at a duty of 0. A duty that changes meanwhile counts at once."""
        wanted = math.inf if duty <= 0 else self.worked_s * (1 / min(duty, 1.0) - 1)
        if wanted - self.rested_s <= 0:
            self.worked_s = self.rested_s = 0.0
            return 0.0
        return wanted - self.rested_s if wanted >= SHORTEST_S else 0.0
