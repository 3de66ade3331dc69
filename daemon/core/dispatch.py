"""Which job runs next, and which are overdue. Pure: decides over entries, starts nothing.

Higher priority first, then the one that came first. A waiting job of higher priority than the running one is started on
top of it: the worker parks the running job at its next denoising step and goes on with it afterwards.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence

from .bulk import is_bulk
from .job import Entry

_SLACK = 64


class Waiting:
    """Heaps over `entries`, the jobs that are not over; a question costs the same with one job as with thousands.

    What has changed since it was put into a heap is found out when it comes to the top.
    """

    def __init__(self, entries: Mapping[str, Entry]):
        self._entries = entries
        self._best: list[tuple[int, float, int, Entry]] = []
        self._later: list[tuple[float, int, Entry]] = []
        self._times: list[tuple[float, int, Entry, str]] = []
        self._number = itertools.count()
        self._bulk_waits = False

    def enter(self, entry: Entry) -> None:
        """A new job: its times are watched from now on."""
        job = entry.job
        if job.deadline_at is not None:
            heapq.heappush(self._times, (job.deadline_at, next(self._number), entry, "deadline"))
        if job.start_by is not None:
            heapq.heappush(self._times, (job.start_by, next(self._number), entry, "start"))
        self.wait(entry)

    def wait(self, entry: Entry) -> None:
        """It can start or go on, now or when `not_before` has come."""
        if entry.not_before > 0:
            heapq.heappush(self._later, (entry.not_before, next(self._number), entry))
        heapq.heappush(self._best, (-entry.job.priority, entry.job.received_at, next(self._number), entry))
        if len(self._best) > 2 * len(self._entries) + _SLACK:  # those that are over and never came to the top
            self._best = [row for row in self._best if self._alive(row[-1])]
            heapq.heapify(self._best)

    def hold_bulk(self, wanted: bool) -> bool:
        """Whether bulk jobs are passed over from now on; True where that is a change."""
        changed, self._bulk_waits = wanted != self._bulk_waits, wanted
        if changed and not wanted:  # those that were passed over come back
            self._best.clear()
            for entry in self._entries.values():
                self.wait(entry)
        return changed

    def choose(self, stack: Sequence[Entry], now: float) -> Entry | None:
        """The entry to hand to the worker now, given what it has in hand (the running one last), or None."""
        while self._later and self._later[0][0] <= now:
            entry = heapq.heappop(self._later)[-1]
            if self._alive(entry):
                heapq.heappush(self._best, (-entry.job.priority, entry.job.received_at, next(self._number), entry))
        while self._best and not self._can_start(self._best[0][-1], stack, now):
            heapq.heappop(self._best)
        best = self._best[0][-1] if self._best else None
        if best is None or (stack and best.job.priority <= stack[-1].job.priority):
            return None
        return best

    def overdue(self, now: float) -> list[tuple[Entry, str]]:
        """Those whose time has come since the last call, with the reason in words."""
        late = []
        while self._times and self._times[0][0] <= now:
            _, _, entry, which = heapq.heappop(self._times)
            if not self._alive(entry):
                continue
            if which == "deadline":
                late.append((entry, "the deadline passed before the job was done"))
            elif entry.state == "accepted" and not entry.moved:
                late.append((entry, "the request's message expiry passed before the job could start"))
        return late

    def due(self, now: float) -> float | None:
        """When `overdue` or `choose` has to be asked again, at the latest."""
        while self._times and not self._alive(self._times[0][2]):
            heapq.heappop(self._times)
        times = [heap[0][0] for heap in (self._times, self._later) if heap and heap[0][0] > now]
        return min(times, default=None)

    def _alive(self, entry: Entry) -> bool:
        return self._entries.get(entry.job.id) is entry

    def _can_start(self, entry: Entry, stack: Sequence[Entry], now: float) -> bool:
        free = self._alive(entry) and entry not in stack and entry.state != "running"
        if self._bulk_waits and is_bulk(entry.job):
            return False
        return free and not entry.held and not entry.waits_for_frame and entry.not_before <= now
