"""How a job that takes the best so far comes to its end in time. Pure: times come in as arguments, monotonic seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

_WRAP_UP_S = 0.05
"""What the end of a job takes."""


@dataclass
class Anytime:
    """How a job that takes the best so far comes to its end in time. Monotonic seconds."""

    until: float
    """When it is due; infinite where it has no deadline."""
    items: int
    turns: float
    """Problems that its items are about, each counted for every item: one for each, or as many as earlier jobs of its kind
    had."""
    rest_s: float
    """What an item takes outside of the loop, by earlier jobs of the kind."""
    hurried: bool = False
    """Its time is up: of each problem the best so far."""
    problem_until: float = math.inf
    done: int = 0
    steps: int = 0

    def begin(self, now: float, item_count: int, items_done: int, turns_done: int) -> None:
        """A problem about so many items begins: it has its part of the time that is left for denoising."""
        turns_left = max(self.turns - turns_done, item_count)
        left = self.until - now - _WRAP_UP_S - self.rest_s * max(self.items - items_done, item_count)
        self.problem_until = now + max(0.0, left) * item_count / turns_left

    def enough(self, now: float, step_s: float) -> bool:
        """Whether the next step would come too late, and one more call of the network as well."""
        return self.hurried or now + 2 * step_s > self.problem_until
