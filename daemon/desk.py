"""The front desk: every accepted job, from its acceptance to its one final reply. Owns the entries.

Work goes to the worker's link, results go to the spool and from there to the bus. What may pass (a device that is away,
a disk that is full) is tried again; what a job is to blame for ends it.
"""

from __future__ import annotations

import itertools
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..config.refusal import Refusal
from ..config.tree import Config, Reply
from .artifacts import date_folder
from .clock import synchronised
from .core import reply
from .core.bulk import is_bulk
from .core.dispatch import Waiting
from .core.job import Entry, Job, folder_name, job_of
from .disk import Disk
from .frames import Frames
from .link import Link
from .outbox import Outbox
from .points import BoardPoint
from .results import JSON, Results, topic
from .spool import Outgoing, Spool, SpoolError

log = logging.getLogger(__name__)

_PROGRESS_PERIOD = 0.2
"""Seconds between two progress events of one job; state changes are always said."""
_DISK_AGAIN_S = 5.0
_LOOKED_AT = 64
"""Waiting jobs that are looked through for those that come next."""


class Steward(Protocol):
    """Who says what a job may cost: the governor."""

    def choose(self, entry: Entry, now: float) -> BoardPoint | None:
        """The operating point for a job that starts now; None where its model is not there."""

    def ended(self, entry: Entry, state: str, facts: Mapping[str, Any], now: float) -> dict[str, Any]:
        """What the result says of its energy."""


class Desk:
    """All accepted jobs of this gateway. Used by one thread; `now` is gateway time (`clock.py`)."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        outbox: Outbox,
        worker: Link,
        cameras: Link,
        disk: Disk,
    ):
        self.config, self._disk = config, disk
        self._spool, self._worker = spool, worker
        self.outbox = outbox
        self.results = Results(config.base, spool, outbox, self._tidy)
        self.frames = Frames(cameras, Path(config.state_dir) / "frames")
        self.entries: dict[str, Entry] = {}
        self.waiting = Waiting(self.entries)
        self.stack: list[Entry] = []
        """What the worker has in hand; the last one runs, those before it are preempted."""
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, str] = {}
        """Models that do not run, and why."""
        self.longest_step = 0.0
        """Seconds between two signs of life of a job, the longest so far."""
        self.checkpoint_bytes = 0
        self.mean_run_ms = 1000
        """What a job takes, as a moving average."""
        self.steward: Steward | None = None
        self._held_back: str | None = None
        self._held_for_heat = False
        """Why bulk jobs do not start now."""
        self._ephemeral: dict[str, Callable[[dict[str, Any] | None], None]] = {}

    def recover(self, now: float) -> None:
        """Takes up what was accepted before this start."""
        for job, state in self._spool.unfinished():
            entry = self._enter(Entry(job))
            if state == "held":
                entry.held = True
                entry.move("paused", "operator")
        self.results.recover(now)
        for folder in self._work_folder.glob("*"):
            if job_of(folder.name) not in self.entries:
                shutil.rmtree(folder, ignore_errors=True)
        self.frames.sweep(self.entries)
        self.drop_cameras(now)
        if self.entries:
            log.info("%d accepted jobs taken up again", len(self.entries))

    # ---- what the reception asks ----------------------------------------------------------------------------------

    def accept(self, jobs: Iterable[Job], now: float) -> None:
        """Stores them; `SpoolError` where the disk does not take them, and then none of them is taken."""
        self._spool.accept(jobs, now)

    def enter(self, job: Job, now: float) -> None:
        """A job that is stored begins its life."""
        self.counts["accepted"] += 1
        entry = self._enter(Entry(job))
        entry.reason = self._held_back if is_bulk(job) else None
        self._say(entry, now)

    def digest(self, job_id: str) -> str | None:
        """The digest of what was asked under this id, however long it is over; None where the id is new."""
        if job_id in self.entries:
            return self.entries[job_id].job.digest
        return self.results.digest(job_id)

    def say_again(self, job_id: str, asker: tuple[str | None, bytes | None], now: float) -> bool:
        """Tells the state of a job that is not over, from now on to this asker as well; False where it is over."""
        entry = self.entries.get(job_id)
        if entry is not None:
            if asker[0]:
                entry.job = replace(entry.job, response_topic=asker[0], correlation=asker[1])
            self._say(entry, now)
        return entry is not None

    def cancel(self, job_id: str, now: float, reason: str | None = None) -> None:
        """Ends a job at its next step, or at once where it does not run; one that is over stays what it is."""
        entry = self.entries.get(job_id)
        if entry is None or entry.cancelled:
            return
        entry.cancelled, entry.cancel_reason = True, reason
        if entry in self.stack:
            self._worker.send({"type": "cancel", "id": job_id})
        else:
            self._finish(entry, "cancelled", {}, now)

    def pause(self, job_id: str, now: float) -> None:
        """Lays a job aside at its next step until `resume`, also over a restart."""
        entry = self.entries.get(job_id)
        if entry is None or entry.held or entry.cancelled:
            return
        entry.held = True
        self._mark(job_id, "held")
        if entry in self.stack:
            self._worker.send({"type": "pause", "id": job_id})
        else:
            self._move(entry, "paused", now, "operator")

    def resume(self, job_id: str, now: float) -> None:
        """Back into the queue."""
        entry = self.entries.get(job_id)
        if entry is None or not entry.held:
            return
        entry.held = False
        self._mark(job_id, "started")
        if entry not in self.stack:
            self._move(entry, "accepted", now)

    # ---- frames ---------------------------------------------------------------------------------------------------

    def _enter(self, entry: Entry) -> Entry:
        self.entries[entry.job.id] = entry
        self.frames.enter(entry)
        self.waiting.enter(entry)
        return entry

    def drop_cameras(self, now: float) -> None:
        """Jobs that want a frame of a camera which the config has no more are told so."""
        for entry in [e for e in self.entries.values() if e.waits_for_frame and e.job.camera not in self.config.cameras]:
            error = Refusal("input", f"no camera '{entry.job.camera}' in the config any more", "params.image.camera")
            self._finish(entry, "failed", {}, now, error)

    def from_cameras(self, message: Mapping[str, Any], now: float) -> None:
        """A frame for a job, or why there is none."""
        entry = self.entries.get(message.get("id", ""))
        if entry is None or not entry.waits_for_frame:
            return
        why = self.frames.take(entry, message)
        if why is None:
            self.waiting.wait(entry)
        else:
            self._finish(entry, "failed", {}, now, Refusal("input", why, "params.image.camera"))

    # ---- life of a job --------------------------------------------------------------------------------------------

    def ephemeral(self, job: Job, then: Callable[[dict[str, Any] | None], None]) -> None:
        """A job that is not stored: `then` gets its output, or None where it came to nothing."""
        self._ephemeral[job.id] = then
        self._enter(Entry(job))

    def drop(self, job_id: str) -> None:
        """An ephemeral job that has not started is forgotten without a word."""
        entry = self.entries.get(job_id)
        if entry is not None and entry not in self.stack:
            del self.entries[job_id], self._ephemeral[job_id]

    def next(self, now: float) -> Entry | None:
        """The job that the worker should have now and has not. While the disk is full none that would write to it.

        Windows of live groups, which write nothing, are more urgent than any request and so never behind one.
        """
        best = self.waiting.choose(self.stack, now)
        return None if best is not None and self._disk.full and best.job.durable else best

    def first_waiting(self, now: float) -> Entry | None:
        """The most urgent job that could start now if nothing was running, and bulk work was not held for heat."""
        best = self.waiting.choose((), now)
        if best is None and self._held_for_heat:
            return next((e for e in self._held() if not e.held and e.not_before <= now), None)
        return best

    def _held(self) -> Iterator[Entry]:
        """Bulk jobs that wait, no more of them than are worth looking at."""
        waiting = (e for e in self.entries.values() if e.state == "accepted" and is_bulk(e.job) and not e.waits_for_frame)
        return itertools.islice(waiting, _LOOKED_AT)

    def live(self) -> list[Entry]:
        """Windows of live groups that wait or run."""
        return [self.entries[job_id] for job_id in self._ephemeral]

    def coming(self, now: float, within_s: float, bulk_comes: bool) -> list[Entry]:
        """The first jobs that will be able to start within so many seconds and cannot yet."""
        found = []
        for _, entry in zip(range(_LOOKED_AT), self.entries.values()):
            later = entry.waits_for_frame or now < entry.not_before <= now + within_s
            if not entry.held and (later or (bulk_comes and is_bulk(entry.job))):
                found.append(entry)
        return found

    def hold(self, why: str | None, in_hand: bool, now: float) -> None:
        """Bulk jobs do not start while there is a reason. One that runs stays in the worker's hand (`in_hand`: it is paused
        there by its pace, for heat), or is laid aside."""
        before, self._held_back = self._held_back, why
        self._held_for_heat = why is not None and in_hand
        self.waiting.hold_bulk(why is not None)
        other = _without_figures(before) != _without_figures(why)
        for entry in self._held() if other else ():
            entry.reason = why
            if why:
                self._say(entry, now)
        for entry in self.stack[-1:]:
            if why is None or not in_hand:
                if entry.state == "paused" and entry.reason == "thermal":
                    self._move(entry, "running", now)
                if why is not None and is_bulk(entry.job) and entry.yields is None and not entry.cancelled:
                    entry.yields = why
                    self._worker.send({"type": "pause", "id": entry.job.id})
            elif entry.state == "running" and entry.job.durable:
                if entry.job.anytime:
                    self._worker.send({"type": "hurry", "id": entry.job.id})
                else:
                    self._move(entry, "paused", now, "thermal")
        if other:
            log.info("bulk jobs %s", f"wait: {why}" if why else "go on")

    def dispatch(self, now: float) -> None:
        """Hands the worker what it should do now, and ends what is overdue or not wanted any more."""
        for entry, why in self.waiting.overdue(now):
            if entry not in self.stack:
                self._finish(entry, "expired", {}, now, Refusal("deadline", why))
            elif entry.job.anytime:
                self._worker.send({"type": "hurry", "id": entry.job.id})
            elif not entry.cancelled:
                entry.cancelled = True
                self._worker.send({"type": "cancel", "id": entry.job.id})
        if (patience := self.config.queue.caller_patience) is not None:
            for job_id in [job_id for job_id, since in self.outbox.deaf.items() if now - since >= patience]:
                self.cancel(job_id, now, f"nobody has read its Response Topic for {patience:g} s")
        while self._worker.ready and (best := self.next(now)) is not None:
            for below in self.stack[-1:]:
                if below.state == "paused":  # for heat
                    below.reason = "preempted"
                    self._say(below, now)
                else:
                    self._move(below, "paused", now, "preempted")
            self._start(best, now)

    def _start(self, entry: Entry, now: float) -> None:
        job, entry.heard_at, entry.rested_s, entry.yields = entry.job, None, 0.0, None
        entry.point = self.steward.choose(entry, now) if self.steward else None
        self.stack.append(entry)
        if job.start_by is not None and job.durable:
            self._mark(job.id, "started")
        self._move(entry, "running", now)
        self._worker.send(
            {
                "type": "run",
                "id": job.id,
                "kind": job.kind,
                "params": job.params,
                "seed": job.seed,
                "frame": entry.frame,
                "durable": job.durable,
                "point": entry.point and asdict(entry.point),
                "items": job.items,
                "paced": job.durable,
                "anytime": job.anytime,
                "finish_in_s": None if job.deadline_at is None else job.deadline_at - now,
            }
        )

    def from_worker(self, message: Mapping[str, Any], now: float) -> None:
        """Progress of a job, or what became of it."""
        entry = self.entries.get(message.get("id", ""))
        if entry is None or entry not in self.stack:
            return
        if message["type"] == "step":
            self._step(entry, message, now)
            return
        self.checkpoint_bytes += message["checkpoint_bytes"]
        self.stack.remove(entry)
        if self.stack and self.stack[-1].state == "paused":
            self.stack[-1].heard_at = None
            self._move(self.stack[-1], "running", now)
        if message["type"] in ("parked", "cancelled"):
            self._laid_aside(entry, now, message, entry.yields)
            entry.yields = None
        elif message["type"] == "done":
            entry.item = entry.job.items
            self.faults.pop(message["about"], None)
            self.mean_run_ms = round(0.8 * self.mean_run_ms + 0.2 * message["run_ms"])
            self._finish(entry, "done", message, now)
        else:
            self._failed(entry, message, now)

    def _step(self, entry: Entry, message: Mapping[str, Any], now: float) -> None:
        if entry.heard_at is not None and entry is self.stack[-1]:
            took, rested = now - entry.heard_at, message["rested_s"] - entry.rested_s
            self.longest_step = max(self.longest_step, took - rested)
        entry.heard_at, entry.rested_s = now, message["rested_s"]
        entry.step, entry.steps, entry.item = message["step"], message["steps"], message["item"]
        entry.in_hand = message["in_hand"]
        if entry.state == "running" and now - entry.told_at >= _PROGRESS_PERIOD:
            self._say(entry, now, progress=True)

    def _failed(self, entry: Entry, message: Mapping[str, Any], now: float) -> None:
        """Tries again what may pass, each time after a longer wait; a full disk is waited for without end."""
        error = Refusal(**message["error"])
        if error.code == "engine" and message["about"]:
            self.faults[message["about"]] = error.message
        again = entry.job.durable and not entry.cancelled and message.get("transient", False)
        if again == "no-room":
            entry.not_before = now + _DISK_AGAIN_S
        elif again:
            again = entry.try_again(now)
        if again:
            self.counts["tried_again"] += 1
            self._laid_aside(entry, now, message, f"tried again: {error.message}")
        else:
            self._finish(entry, "failed", message, now, error)

    def worker_died(self, how: str, now: float) -> None:
        """What the worker had in hand goes on in the next one; a job that kills it again at the same place is given up."""
        if self.stack and self.stack[-1].worker_died():
            guilty = self.stack.pop()
            why = f"{guilty.deaths} workers died under this job ({how})"
            if guilty.outgrew:
                why += "; it needs more memory than engine.memory_limit_mb allows"
            self._finish(guilty, "failed", {}, now, Refusal("engine", why))
        self.worker_restarted(now, how)

    def worker_restarted(self, now: float, how: str = "restarted") -> None:
        """The worker is a new one, and knows nothing of what the old one had in hand."""
        stack, self.stack = self.stack, []
        for entry in stack:
            self._laid_aside(entry, now, {}, f"worker {how}")

    def _laid_aside(self, entry: Entry, now: float, facts: Mapping[str, Any], reason: str | None = None) -> None:
        """The worker has it no more: it is over where it was cancelled or its time is up, else it waits or stays paused."""
        if entry.cancelled:
            late = entry.job.deadline_at is not None and now >= entry.job.deadline_at
            error = Refusal("deadline", "the deadline passed before the job was done") if late else None
            self._finish(entry, "expired" if late else "cancelled", facts, now, error)
            return
        entry.spent_ms += facts.get("run_ms", 0)
        if entry.held and entry.state == "paused":  # for a more urgent job, that came meanwhile
            entry.reason = "operator"
            self._say(entry, now)
        else:
            self._move(entry, "paused" if entry.held else "accepted", now, "operator" if entry.held else reason)

    # ---- the end of a job -----------------------------------------------------------------------------------------

    def _move(self, entry: Entry, state: str, now: float, reason: str | None = None) -> None:
        entry.move(state, reason)
        if state == "accepted":
            self.waiting.wait(entry)
        self._say(entry, now)

    def _finish(self, entry: Entry, state: str, facts: Mapping[str, Any], now: float, error: Refusal | None = None) -> None:
        """The one final reply: stored with its messages in one transaction, and sent from there."""
        job = entry.job
        if self.steward:
            facts = {**facts, **self.steward.ended(entry, state, facts, now)}
        entry.move(state)
        del self.entries[job.id]
        self.outbox.forget(job.id)
        if not job.durable:
            self.counts[f"live_{state}"] += 1
            self._ephemeral.pop(job.id)(facts.get("output") if state == "done" else None)
            return
        self.counts[state] += 1
        final = reply.result(entry, state, self.wall(), now - job.received_at, facts, error, synchronised())
        payload = msgspec.json.encode(final)
        messages = [self.results.message(job.id, payload)]
        if job.response_topic:
            messages.append(Outgoing(job.response_topic, payload, None, job.correlation, JSON, job.id))
        if job.deliver == "mqtt":
            messages[:0] = [
                Outgoing(self.topic(job.id, f"artifact/{a['name']}"), None, a["path"], None, a["media_type"], job.id)
                for a in final["artifacts"]
            ]
        if plc := self.trigger_reply(job.source):
            messages.append(Outgoing(plc.topic, msgspec.json.encode(reply.plc(final, plc.form)), job=job.id))
        self.results.keep(job.id, job.digest, final, messages, now)

    def _tidy(self, job_id: str, now: float) -> None:
        """What a job needed and its readers do not. A disk that does not let go of it is no fault of the job."""
        name = folder_name(job_id)
        try:
            date_folder(self.config.artifacts_dir / name, now)
            self.frames.drop(job_id)
        except OSError as e:
            log.warning("job %s: %s", job_id, e)
        shutil.rmtree(self._work_folder / name, ignore_errors=True)
        shutil.rmtree(self.config.artifacts_dir / f".{name}.part", ignore_errors=True)

    def _mark(self, job_id: str, state: str) -> None:
        try:
            self._spool.mark(job_id, state)
        except SpoolError as e:  # it only matters after a restart
            log.error("job %s is %s, and that is not stored: %s", job_id, state, e)

    # ---- words ----------------------------------------------------------------------------------------------------

    def _say(self, entry: Entry, now: float, progress: bool = False) -> None:
        """The entry's state as an event, on the job's topic and to whoever asked for it."""
        job = entry.job
        if not job.durable:
            return
        entry.told_at = now
        payload = msgspec.json.encode(reply.event(entry, self.wall()))
        say = self.outbox.progress if progress else lambda message, asker_of=None: self.outbox.say("event", message, asker_of)
        say(Outgoing(self.topic(job.id, "event"), payload, content_type=JSON))
        if job.response_topic:
            say(Outgoing(job.response_topic, payload, None, job.correlation, JSON), job.id)

    def topic(self, job_id: str, what: str) -> str:
        """One of the job's own topics."""
        return topic(self.config.base, job_id, what)

    def trigger_reply(self, source: str) -> Reply | None:
        """Where the trigger that made a job wants a short reply."""
        trigger = self.config.triggers.get(source)
        return trigger.reply if trigger else None

    def wall(self) -> float:
        """For time stamps."""
        return self._spool.clock.wall()

    @property
    def _work_folder(self) -> Path:
        return Path(self.config.state_dir) / "work"


def _without_figures(why: str | None) -> str | None:
    """A reason that differs in its figures alone is not worth telling again."""
    return why and re.sub(r"[\d.]+", "", why)
