"""What is said of a job when it comes in: its operating point, when it will be done, what it will take; or that it cannot be.

Refused is only what even the fastest acceptable operating point cannot do alone. A promise is kept where the job is done by
the time that it names; what was said to come behind its own deadline was no promise.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..config.refusal import Refusal
from .core import bulk
from .core.bulk import Wait
from .core.governor import Governor
from .core.job import Entry, Job, Promise
from .core.reading import Traits
from .core.reply import stamp
from .desk import Desk
from .planner import Plan, Planner

_OVERHEAD_S = 0.05
"""What a job takes beside its run: acceptance, the wire, storing the result."""
_NEVER_S = 365 * 86400.0
_ALIKE_S = 1.0
"""For so long a job that is like the last one is told to follow it: jobs come in by the hundred."""


@dataclass
class _Last:
    """The last job of its sort: when it was asked about and what was found, by how much a job is slowed down, its joules."""

    at: float
    finish_in: float
    stretch: float
    option: int
    joules: float


class Promises:
    """Used by one thread; `now` is gateway time, `wall` seconds since 1970."""

    def __init__(self, planner: Planner, desk: Desk):
        self._planner, self._desk = planner, desk
        self._last: dict[tuple[object, ...], _Last] = {}
        self.counts = Counter[str](made=0, kept=0, broken=0)
        self._open: set[str] = set()
        """Jobs whose promise is counted as made."""

    def make(
        self, job: Job, now: float, wall: float, policy: Governor, traits: Traits, wait: Wait | None, cold_s: float
    ) -> Promise | None:
        """None where too little is known to say anything. wait: why bulk work waits; cold_s: what a worker takes to come."""
        plan = self._planner.plan(job, now, traits)
        if plan is None or not plan.measured:
            return None
        demand, waits = plan.demand, wait if bulk.is_bulk(job) else None
        if job.deadline_at is not None and not job.anytime and not bulk.is_bulk(job):
            self._refuse_vain(job, plan, now, wall, policy)
        if waits is not None and waits.ends_in is None:
            return None
        found = self._find(job, plan, now, policy, traits)
        waiting_s = waits.ends_in or 0.0 if waits is not None else 0.0
        finish_s = waiting_s + found.finish_in / self._planner.scale * (1 + plan.off) + _OVERHEAD_S + cold_s
        if finish_s > _NEVER_S:
            return None
        self._planner.enter(job, plan)
        run_s = demand.options[found.option].seconds * demand.samples / self._planner.scale
        return Promise(
            plan.points[found.option].told(plan.bundle),
            now + finish_s,
            stamp(wall + finish_s),
            max(1, round(run_s * 1000)),
            round(found.joules / self._planner.scale + traits.idle_w * run_s, 3),
            "calibration" if plan.calibrated else "estimate",
        )

    def _refuse_vain(self, job: Job, plan: Plan, now: float, wall: float, policy: Governor) -> None:
        scale = self._planner.scale
        fastest_s = plan.fastest_s
        if job.deadline_at is None or now + fastest_s <= job.deadline_at:
            return
        self._planner.doubt(plan)
        alone = policy.promise(now * scale, [plan.demand], 0)
        at = stamp(wall + max(fastest_s, min(alone.finish_in / scale, _NEVER_S)))
        why = f"not possible before {at}: even the fastest acceptable operating point takes {fastest_s:.1f} s"
        raise Refusal("deadline", why, "deadline_ms", earliest=at)

    def _find(self, job: Job, plan: Plan, now: float, policy: Governor, traits: Traits) -> _Last:
        """The policy's word, or the last one with one job more where it is like the last."""
        key = job.priority, plan.bundle.sha256, job.items, job.quality, job.deadline_at is None
        last = self._last.get(key)
        if last is not None and now - last.at < _ALIKE_S:
            last.finish_in += last.stretch * plan.demand.options[last.option].seconds * plan.demand.samples
            return last
        entries = self._desk.entries
        ahead = self._planner.ahead(job, entries.values(), len(entries), now, traits)
        found = policy.promise(now * self._planner.scale, [*ahead, plan.demand], len(ahead))
        ideal_s = sum(d.samples * min(o.seconds for o in d.options) for d in (*ahead, plan.demand))
        stretch = max(1.0, found.finish_in / max(ideal_s, 1e-6))
        if len(self._last) > 64:
            self._last.clear()
        self._last[key] = _Last(now, found.finish_in, stretch, found.option, found.joules)
        return self._last[key]

    def accepted(self, job: Job) -> None:
        """It was said to the plant."""
        if job.promise is not None and not _vain(job):
            self.counts["made"] += 1
            self._open.add(job.id)

    def ended(self, entry: Entry, state: str, now: float) -> None:
        """Kept or broken; who cancels a job has no promise to keep."""
        promise = entry.job.promise
        here = entry.job.id in self._open
        self._open.discard(entry.job.id)
        if promise is not None and state != "cancelled" and not _vain(entry.job):
            self.counts["made"] += not here  # before this start
            self.counts["kept" if state == "done" and now <= promise.finish_at else "broken"] += 1


def _vain(job: Job) -> bool:
    return job.promise is not None and job.deadline_at is not None and job.promise.finish_at > job.deadline_at
