"""Why bulk work waits, by the configured policy: quiet hours, the day's energy, a signal of the plant. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .job import Job

DAY_MIN = 1440


@dataclass(frozen=True)
class Wait:
    """Why bulk work waits, for people, and in how many seconds it may go on, where that is known."""

    why: str
    ends_in: float | None


def is_bulk(job: Job) -> bool:
    """Whether a job waits where bulk work waits. A background kind has a priority below all others."""
    return job.durable and (job.deadline_at is None or job.priority < 0)


def waits(policy: Any, minute: float, signal: float | None, left_j: float | None) -> Wait | None:
    """`policy`: the config's `Policy`. minute: of the local day. signal: its last value, None before there was one. left_j:
    what is left of the day's budget, None without one."""
    for hours in policy.quiet_hours:
        begin, end = (60 * int(at[:2]) + int(at[3:]) for at in hours.split("-"))
        if _within(minute, begin, end):
            return Wait(f"quiet hours until {hours[-5:]}", ((end - minute) % DAY_MIN) * 60)
    if left_j is not None and left_j <= 0:
        why = f"the energy budget of {policy.energy_budget_j_per_day:g} J is used up until midnight"
        return Wait(why, (DAY_MIN - minute) * 60)
    wanted = policy.signal
    if wanted is not None and signal is not None:
        if wanted.above is not None and signal > wanted.above:
            return Wait(f"{wanted.topic} is {signal:g}, above {wanted.above:g}", None)
        if wanted.below is not None and signal < wanted.below:
            return Wait(f"{wanted.topic} is {signal:g}, below {wanted.below:g}", None)
    return None


def _within(minute: float, begin: int, end: int) -> bool:
    return begin <= minute < end if begin < end else minute >= begin or minute < end
