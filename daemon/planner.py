"""What each job is to the policy: its operating points with what they take here, how much of it is left, when it is due.

What a point takes comes from the calibration and from the jobs that have run; a model of which neither is known is guessed
at for pacing, and promised nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..engines.bundle import Bundle
from .core.costs import Cost
from .core.governor import Demand, Option
from .core.job import Entry, Job
from .core.reading import Traits
from .points import BoardPoint, Offers

_GUESS_S = 1.0
"""Seconds of an item of which nothing is known."""
_LEAST_LEFT = 0.02
"""Share of an item that is left of a job that is about to end."""
_LOOKED_AT = 256
"""Waiting jobs that a promise counts one by one; of more the rest is taken to be alike."""
_AHEAD_S = 1.0


@dataclass(frozen=True)
class Plan:
    """A job as the policy sees it. measured: what it takes is known from the calibration or from jobs that have run."""

    bundle: Bundle
    points: tuple[BoardPoint, ...]
    demand: Demand
    calibrated: bool
    measured: bool
    off: float
    """By which share predictions were too short lately."""
    fastest_s: float
    """What all of it takes at least, at the fastest point: by the calibration or the fastest run, whichever is less."""


class Planner:
    """Used by one thread; `now` is gateway time. `bundle_of(job)`: its model, None where it is not there. `scale`:
    seconds of the board per second, 1 but in trials."""

    def __init__(
        self,
        offers: Offers,
        costs: dict[str, Cost],
        bundle_of: Callable[[Job], Bundle | None],
        scale: float,
    ):
        self.offers, self.costs, self.scale = offers, costs, scale
        self.bundle_of = bundle_of
        self.open_s = 0.0
        """What a worker took lately to open the networks of its first job."""
        self._ahead: dict[tuple[int, str], Plan] = {}
        self._ahead_at = -math.inf

    def plan(self, job: Job, now: float, traits: Traits, entry: Entry | None = None) -> Plan | None:
        """entry: where the job is already in hand; then it has its point, and a part of it may be done."""
        bundle = self.bundle_of(job)
        if bundle is None:
            return None
        offer = self.offers.of(bundle)
        points = offer.acceptable(job.quality) if entry is None or entry.point is None else (entry.point,)
        items, options, measured, off, fastest_s = max(1, job.items), [], True, 0.0, math.inf
        for point in points:
            seconds, cost = self._seconds(bundle, point, items)
            fastest_s = min(fastest_s, self._fastest(bundle, point, items))
            measured = measured and (seconds is not None)
            off = max(off, cost.off if cost else 0.0)
            each_s = (seconds if seconds is not None else _GUESS_S * items) / items
            quality = 1.0 if point.quality is None else point.quality
            options.append(Option(max(each_s, 1e-6) * self.scale, _watts(point, traits), quality))
        left = float(items) if entry is None else max(_LEAST_LEFT, items - _done(entry))
        demand = Demand(tuple(options), left, self._due_in(job, now), 0.0, realtime=not job.durable)
        return Plan(bundle, points, demand, offer.calibrated, measured, off, fastest_s)

    def _due_in(self, job: Job, now: float) -> float | None:
        due_at = job.deadline_at if job.durable else job.wanted_at
        return None if due_at is None else max(0.01, due_at - now) * self.scale

    def _seconds(self, bundle: Bundle, point: BoardPoint, items: int) -> tuple[float | None, Cost | None]:
        key, work = _work(bundle, point, items)
        cost = self.costs.get(key)
        learnt = cost.seconds(work) if cost else None
        return (learnt, cost) if learnt is not None else (work if point.sample_s is not None else None, None)

    def _fastest(self, bundle: Bundle, point: BoardPoint, items: int) -> float:
        """Seconds that so many items take at least, 0 where nothing is known."""
        key, work = _work(bundle, point, items)
        cost = self.costs.get(key)
        known = [cost.seconds(work), cost.fastest(work)] if cost else []
        known += [work if point.sample_s is not None else None]
        return min((s for s in known if s is not None), default=0.0)

    def doubt(self, plan: Plan) -> None:
        """A job was refused, as even its fastest point would be too slow."""
        for key in {_work(plan.bundle, point, 1)[0] for point in plan.points} & self.costs.keys():
            self.costs[key].doubt()

    def too_short(self, entry: Entry, facts: Mapping[str, Any], clock: float) -> None:
        """Its deadline came before its end."""
        bundle = self.bundle_of(entry.job)
        if bundle is None or entry.point is None or facts.get("resumed_steps") or entry.spent_ms or "run_ms" not in facts:
            return
        key, work = _work(bundle, entry.point, max(1, entry.job.items))
        busy_s = facts["run_ms"] / 1000 - facts.get("paced_s", 0.0) - facts.get("opened_s", 0.0)
        if key in self.costs:
            self.costs[key].too_short(work, busy_s * clock)

    def learn(self, entry: Entry, facts: Mapping[str, Any], clock: float) -> None:
        """A job is done; what was cut short, resumed or tried again tells nothing."""
        bundle, whole = self.bundle_of(entry.job), facts.get("quality_tier", 1.0) == 1.0
        if bundle is None or entry.point is None or not whole or facts.get("resumed_steps") or entry.spent_ms:
            return
        if facts["opened_s"] > 0:
            self.open_s = facts["opened_s"]
        busy_s = facts["run_ms"] / 1000 - facts["paced_s"] - facts["opened_s"]
        key, work = _work(bundle, entry.point, max(1, entry.job.items))
        self.costs.setdefault(key, Cost()).learn(work, max(1e-4, busy_s * clock))

    # ---- what is before a job ----------------------------------------------------------------------------------------

    def ahead(self, job: Job, entries: Iterable[Entry], count: int, now: float, traits: Traits) -> list[Demand]:
        """What runs before a job that comes in now: all of its priority or above, alike ones added up."""
        if now - self._ahead_at >= _AHEAD_S:
            self._count(entries, count, now, traits)
        before = [
            plan for (priority, _), plan in sorted(self._ahead.items(), key=lambda row: -row[0][0]) if priority >= job.priority
        ]
        return [plan.demand for plan in before]

    def enter(self, job: Job, plan: Plan) -> None:
        """One more that is before others."""
        self._add(job, plan)

    def _count(self, entries: Iterable[Entry], count: int, now: float, traits: Traits) -> None:
        self._ahead, self._ahead_at = {}, now
        alike = max(1.0, count / _LOOKED_AT)
        for _, entry in zip(range(_LOOKED_AT), entries):
            plan = None if entry.held else self.plan(entry.job, now, traits, entry)
            if plan is not None and entry.job.durable:
                more = replace(plan.demand, samples=plan.demand.samples * alike)
                self._add(entry.job, replace(plan, demand=more))

    def _add(self, job: Job, plan: Plan) -> None:
        # Its deadline is its own: what comes later waits for all of it.
        key = job.priority, f"{plan.bundle.sha256}/{plan.points[0]}/{len(plan.points)}"
        known = self._ahead.get(key)
        samples = plan.demand.samples + (known.demand.samples if known else 0.0)
        self._ahead[key] = replace(plan, demand=replace(plan.demand, samples=samples, due_in=None))


def _work(bundle: Bundle, point: BoardPoint, items: int) -> tuple[str, float]:
    """Under which name what it takes is learnt, and how much work it is: calibrated points of a model are told by one sum."""
    if point.sample_s is not None:
        return bundle.sha256[:16], items * point.sample_s
    place = f"{point.shipped}/{point.steps}/{point.batch}/{point.threads}"
    return f"{bundle.sha256[:16]}/{place}", float(items)


def _watts(point: BoardPoint, traits: Traits) -> float:
    if point.busy_w is not None:
        return max(0.1, point.busy_w)
    return (traits.full_w - traits.idle_w) * min(1.0, point.threads / (os.cpu_count() or 1))


def _done(entry: Entry) -> float:
    """Items that are done, those in hand counted by their steps."""
    return entry.item + (entry.in_hand * entry.step / entry.steps if entry.steps else 0.0)
