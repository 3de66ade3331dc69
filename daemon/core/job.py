"""What a job is, and the table of its life. Pure: no clock, no I/O.

accepted -> running <-> paused -> done | failed | cancelled | expired
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

FINAL = ("done", "failed", "cancelled", "expired")

TRANSITIONS: dict[str, tuple[str, ...]] = {
    "accepted": ("running", "paused", *FINAL),
    "running": ("paused", "accepted", *FINAL),
    "paused": ("running", "accepted", *FINAL),
    **dict.fromkeys(FINAL, ()),
}
"""From each state, the states that may follow.

A job that waits is paused by an operator alone. Back to `accepted` where a worker died under it, or it is tried again.
"""

RETRIES = 4
"""How often a job is tried again after a fault that may pass; the waits between add up to 7.5 s."""


@dataclass(frozen=True)
class Promise:
    """What was said when the job was accepted. finish_at: gateway time, `finish` the same for readers; energy_j: all that the
    board draws meanwhile. basis: `calibration`, or `estimate` where only earlier jobs tell."""

    operating_point: dict[str, Any]
    finish_at: float
    finish: str
    run_ms: int
    energy_j: float
    basis: str


@dataclass(frozen=True)
class Job:
    """A request that was taken. Times (`*_at`) are seconds of gateway time (`daemon/clock.py`), which survives a restart."""

    id: str
    kind: str
    params: dict[str, Any]
    seed: int
    items: int
    received_at: float
    priority: int = 4
    deadline_at: float | None = None
    """Not worth finishing after this."""
    wanted_at: float | None = None
    """Planned for this time, though it is worth doing later as well: windows of live groups."""
    start_by: float | None = None
    """Not worth starting after this (the request's Message Expiry Interval)."""
    deliver: str = "file"
    digest: str = ""
    """What the request asks, as a hash: the same id with another digest is a conflict."""
    response_topic: str | None = None
    correlation: bytes | None = None
    source: str = "submit"
    """`submit`, or the name of the trigger that made it."""
    durable: bool = True
    camera: str | None = None
    """The camera whose frame it wants."""
    quality: float | None = None
    """The least quality of the operating point that is acceptable; None: that of the model's first point."""
    anytime: bool = False
    """When its time is up, the best estimate so far is better than nothing."""
    promise: Promise | None = None


@dataclass(eq=False)
class Entry:
    """A job in the daemon's hands: where it stands now."""

    job: Job
    state: str = "accepted"
    reason: str | None = None
    step: int = 0
    steps: int = 0
    item: int = 0
    in_hand: int = 1
    """Items that are denoised together now."""
    heard_at: float | None = None
    """When the worker last said something about it in this run."""
    point: Any = None
    """The operating point it runs at on this board (`points.BoardPoint`), once it has been started."""
    meter: Any = None
    """The board's power while it ran (`board.energy.Integral`), where the board can tell."""
    warmed: bool = False
    """The worker was told to open what it will run."""
    yields: str | None = None
    """Why it was told to make room."""
    rested_s: float = 0.0
    """What the worker has paused in it, to keep the pace, in this run."""
    frame: str | None = None
    """The picture its camera took, once it is there."""
    waits_for_frame: bool = False
    deaths: int = 0
    """Workers that died under it."""
    died_at: tuple[int, int] | None = None
    """Item and step at which the last one did."""
    outgrew: int = 0
    """Workers that were ended under it because they held too much memory."""
    cancelled: bool = False
    cancel_reason: str | None = None
    held: bool = False
    """An operator paused it; it goes on when one says so."""
    spent_ms: int = 0
    """Run time of earlier runs that were laid aside."""
    tries: int = 0
    """Faults that it was tried again after."""
    not_before: float = 0.0
    """Gateway time before which it is not tried again."""
    told_at: float = 0.0
    """When its state was last said."""
    moved: bool = False
    """It has had another state than its first."""

    def try_again(self, now: float) -> bool:
        """Notes a fault that may pass; whether there is another try, after twice the wait of the last one."""
        self.tries += 1
        self.not_before = now + 0.25 * 2**self.tries
        return self.tries <= RETRIES

    def worker_died(self) -> bool:
        """Notes a death; whether the job is to be given up.

        Twice at the same place is its fault, so is twice for its memory, and so is the fifth anywhere.
        """
        place = (self.item, self.step)
        again, self.died_at = place == self.died_at, place
        self.deaths += 1
        return again or self.outgrew >= 2 or self.deaths >= 5

    def move(self, state: str, reason: str | None = None) -> None:
        """To a state that the table allows."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"job {self.job.id}: {self.state} -> {state} is not in the table")
        self.state, self.reason = state, reason
        self.moved = True


def folder_name(job_id: str) -> str:
    """The name of a job's folders: `.` and `..` are lawful ids, and names with a dot ahead are those of unfinished folders."""
    return f"%{job_id}" if job_id.startswith(".") else job_id


def job_of(folder: str) -> str:
    """The id of the job that a folder of this name belongs to; no id holds a `%`."""
    return folder.removeprefix("%")


def digest(kind: str, request: Any) -> str:
    """A hash of what is asked, the same for every spelling of the same JSON."""
    return hashlib.sha256(kind.encode() + b"\0" + msgspec.json.encode(request, order="deterministic")).hexdigest()


def default_seed(job_id: str) -> int:
    """A seed for a request that brings none: a function of the id, so that the same job is the same picture."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4], "big")
