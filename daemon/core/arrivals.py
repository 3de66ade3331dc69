"""When real-time work comes, and how much: learnt from what is seen waiting, so that its heat can be kept back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Waiting(Protocol):
    """What is asked of a demand here."""

    @property
    def samples(self) -> float: ...
    @property
    def due_in(self) -> float | None: ...


class Arrivals:
    """Arrivals are told from samples that were not waiting a moment ago."""

    def __init__(self) -> None:
        self.waiting_s = self.waiting_j = 0.0
        """What the real-time work that waits now will take."""
        self._left = 0.0
        self._last: float | None = None
        self._period: float | None = None
        self._samples = 0.0
        self._due: float | None = None
        self._cost_s = self._cost_j = 0.0

    def see(self, now: float, waiting: Sequence[Waiting]) -> None:
        """Real-time demands as they are now."""
        total = sum(d.samples for d in waiting)
        came = total - self._left
        if came > 1e-6:
            if self._last is not None and now > self._last:
                gap = now - self._last
                self._period = gap if self._period is None else self._period + 0.3 * (gap - self._period)
            self._last = now
            self._samples = max(came, 0.9 * self._samples)
            dues = [d.due_in for d in waiting if d.samples > 0 and d.due_in is not None]
            if dues:
                self._due = min(dues) if self._due is None else min(min(dues), 1.02 * self._due)
        self._left = total

    def take(self, seconds: float, joules: float) -> None:
        """What the waiting work was planned to take."""
        self.waiting_s, self.waiting_j = seconds, joules
        if seconds > 0 and self._left > 0:
            self._cost_s, self._cost_j = seconds / self._left, joules / self._left

    @property
    def expected(self) -> tuple[float, float | None]:
        """(samples, seconds to their deadline) of the next arrival; no deadline where none has been seen."""
        return self._samples, self._due

    @property
    def share(self) -> float:
        """Of the time that regular arrivals take."""
        if self._period is None:
            return 0.0
        return min(0.9, self._samples * self._cost_s / max(self._period, 1e-3))

    def next(self, now: float) -> tuple[float, float, float] | None:
        """(in how many seconds, watts, for how many seconds) of the next regular arrival."""
        if self._period is None or self._last is None or self._cost_s <= 0:
            return None
        due = self._last + self._period - now
        return (due, self._cost_j / self._cost_s, self._samples * self._cost_s) if due > -1.0 else None
