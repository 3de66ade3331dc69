"""Why bulk work waits, by the configured policy: quiet hours, the day's energy, a signal of the plant. Pure."""

from __future__ import annotations

from collections.abc import Sequence
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


def below_rest(policy: Any, idle_w: float) -> str | None:
    """A day's budget that the board takes without any work leaves nothing for it: why, in words."""
    budget_j, rest_j = policy.energy_budget_j_per_day, idle_w * DAY_MIN * 60
    if budget_j is None or budget_j > rest_j:
        return None
    return f"the energy budget of {budget_j:g} J a day is not more than the {rest_j:.0f} J that the board takes at rest"


def waits(policy: Any, minute: float, signal: float | None, left_j: float | None, idle_w: float = 0.0) -> Wait | None:
    """`policy`: the config's `Policy`. minute: of the local day. signal: its last value, None before there was one. left_j:
    what is left of the day's budget, None without one. idle_w: what the board takes at rest."""
    quiet_min, until = _quiet(policy.quiet_hours, minute)
    if until is not None:
        return Wait(f"quiet hours until {until}", quiet_min * 60)
    if why := below_rest(policy, idle_w):
        return Wait(why, None)
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


def _quiet(quiet_hours: Sequence[str], minute: float) -> tuple[float, str | None]:
    """Minutes from now to the end of the quiet hours that it is within, and that end; one goes on in another."""
    left, until = 0.0, None
    for _ in quiet_hours:
        for hours in quiet_hours:
            begin, end = (60 * int(at[:2]) + int(at[3:]) for at in hours.split("-"))
            at = (minute + left) % DAY_MIN
            if left < DAY_MIN and _within(at, begin, end):
                left, until = left + (end - at) % DAY_MIN, hours[-5:]
    return left, until


def _within(minute: float, begin: int, end: int) -> bool:
    return begin <= minute < end if begin < end else minute >= begin or minute < end
