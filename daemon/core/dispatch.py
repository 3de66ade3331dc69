"""Which job runs next. Pure: decides over entries, starts nothing.

Higher priority first, then the one that came first. A waiting job of higher priority than the running one is started on
top of it: the worker parks the running job at its next denoising step and goes on with it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .job import FINAL, Entry


def choose(entries: Iterable[Entry], stack: Sequence[Entry], now: float) -> Entry | None:
    """The entry to hand to the worker now, given what it has in hand (the running one last), or None."""
    waiting = (e for e in entries if e not in stack and not e.held and not e.waits_for_frame and e.not_before <= now)
    best = min(waiting, key=lambda e: (-e.job.priority, e.job.received_at), default=None)
    if best is None or (stack and best.job.priority <= stack[-1].job.priority):
        return None
    return best


def overdue(entries: Iterable[Entry], now: float) -> list[tuple[Entry, str]]:
    """Those whose time is up, with the reason in words."""
    late = []
    for e in entries:
        if e.state in FINAL:
            continue
        if e.job.deadline_at is not None and now >= e.job.deadline_at:
            late.append((e, "the deadline passed before the job was done"))
        elif e.job.start_by is not None and now >= e.job.start_by and e.state == "accepted" and not e.history:
            late.append((e, "the request's message expiry passed before the job could start"))
    return late


def next_due(entries: Iterable[Entry], now: float) -> float | None:
    """When `overdue` or `choose` has to be asked again, at the latest."""
    times = [t for e in entries if e.state not in FINAL for t in (e.job.deadline_at, e.job.start_by if not e.history else None)]
    times += [e.not_before for e in entries if e.not_before > now]
    return min((t for t in times if t is not None), default=None)
