"""The front desk: every job from its request to its one final reply. Owns the entries; stores before it acknowledges.

Bytes come from the bus, work goes to the worker's link, results go to the spool and from there to the bus.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ..config import typed
from ..config.refusal import Refusal
from ..config.tree import Config, Reply
from ..plugins.kind import JobKind, Site
from .bus import Bus, Message
from .core import dispatch, reply, triggers
from .core.intake import Envelope, decode, read_request, usable_id
from .core.job import Entry, Job, digest, folder_name, job_of
from .link import Link
from .outbox import Outbox
from .spool import Outgoing, Spool, SpoolError

log = logging.getLogger(__name__)

_Asker = tuple[str | None, bytes | None]
"""Response Topic and Correlation Data of a request."""
_JSON = "application/json"
_PROGRESS_PERIOD = 0.2
"""Seconds between two progress events of one job; state changes are always said."""


class Desk:
    """All jobs of this gateway. Used by one thread; `now` is the wall clock in seconds."""

    def __init__(
        self, config: Config, spool: Spool, bus: Bus, worker: Link, cameras: Link, kinds: Mapping[str, JobKind], site: Site
    ):
        self.config, self.site, self._kinds = config, site, kinds
        self._spool, self._bus, self._worker, self._cameras = spool, bus, worker, cameras
        self.outbox = Outbox(spool, bus)
        self.entries: dict[str, Entry] = {}
        self.stack: list[Entry] = []
        self.counts: Counter[str] = Counter()
        self.longest_step = 0.0
        """Seconds between two signs of life of a job, the longest so far."""
        self._unstored: list[tuple[str, dict[str, Any], list[Outgoing]]] = []
        self._ephemeral: dict[str, Callable[[dict[str, Any] | None], None]] = {}
        self._told: dict[str, float] = {}

    def recover(self) -> None:
        """Takes up what was accepted before this start."""
        for job in self._spool.unfinished():
            self._enter(Entry(job))
        for folder in self._work_folder.glob("*"):
            if job_of(folder.name) not in self.entries:
                shutil.rmtree(folder, ignore_errors=True)
        if self.entries:
            log.info("%d accepted jobs taken up again", len(self.entries))

    # ---- requests -------------------------------------------------------------------------------------------------

    def take(self, messages: list[Message], now: float) -> None:
        """Requests, triggers and cancels that arrived together: stored in one commit, then acknowledged and answered."""
        fresh: dict[str, Job] = {}
        cancels = [m for m in messages if m.topic.startswith(f"{self.config.base}/jobs/") and m.topic.endswith("/cancel")]
        for message in messages:
            clears = message.retained and not message.payload  # how a retained message is taken off the broker
            if message not in cancels and not clears:
                self._read(message, fresh, now)
        if fresh:
            try:
                self._spool.accept(fresh.values(), now)
            except SpoolError as e:
                log.error("%s", e)
                for job in fresh.values():
                    self._refuse(job.id, job.kind, Refusal("storage", str(e)), job.response_topic, job.correlation, now)
                fresh.clear()
        for message in messages:
            self._bus.ack(message)
        for job in fresh.values():
            self.counts["accepted"] += 1
            entry = Entry(job)
            self._enter(entry)
            self._say(entry, now)
        for message in cancels:  # last, for the job may have come in with them
            self._cancel(message, now)

    def _read(self, message: Message, fresh: dict[str, Job], now: float) -> None:
        base, topic = self.config.base + "/jobs/", message.topic
        middle, _, verb = topic[len(base) :].rpartition("/") if topic.startswith(base) else ("", "", "")
        if verb == "submit":
            self._request(middle, lambda: decode(message.payload, self.config.mqtt.max_payload), message, "submit", fresh, now)
        elif not topic.startswith(self.config.base + "/"):  # what we say ourselves never fires a trigger
            for name, trigger in self.config.triggers.items():
                if triggers.matches(trigger.topic, topic):
                    self._trigger(name, trigger, message, fresh, now)

    def _trigger(self, name: str, trigger: Any, message: Message, fresh: dict[str, Job], now: float) -> None:
        self.counts["triggers"] += 1
        try:
            payload = decode(message.payload, self.config.mqtt.max_payload) if message.payload else None
        except Refusal:
            payload = message.payload.decode("utf-8", "replace")  # a plain word is a payload too
        if message.retained or triggers.fires(trigger.when, payload):
            self._request(trigger.kind, lambda: triggers.request(trigger, payload), message, name, fresh, now)

    def _request(
        self, kind: str, read: Callable[[], Any], message: Message, source: str, fresh: dict[str, Job], now: float
    ) -> None:
        """One request, whatever it came in: taken into `fresh`, or answered here and now."""
        body: Any = None
        asker: _Asker = (self._reply_topic(message), message.correlation) if source == "submit" else (None, None)
        try:
            if message.retained:
                with contextlib.suppress(Refusal):
                    body = read()
                raise Refusal("bad-request", "a retained request fires at each reconnect; send it with retain 0", "retain")
            body = read()
            job_id = usable_id(body)
            known = self._known(job_id, fresh) if job_id else None
            if known is not None and job_id:
                if known.digest != digest(kind, body):
                    raise Refusal("conflict", f"job '{job_id}' exists with other content; choose another id", "id")
                self._again(job_id, known, asker, fresh, now, self._trigger_reply(source))
                return
            around = Envelope(now, asker[0], asker[1], message.expiry_s, source)
            job = read_request(kind, body, around, self._kinds, self.site, lambda: secrets.token_hex(8))
            if len(self.entries) + len(fresh) >= self.config.queue.max_jobs:
                raise Refusal("overloaded", f"{self.config.queue.max_jobs} jobs are waiting already; send it again later")
            fresh[job.id] = job
        except Refusal as e:
            if message.retained:
                self.counts["retained_refused"] += 1
            self._refuse(usable_id(body), kind, e, *asker, now, fresh, self._trigger_reply(source))
        except Exception as e:  # a kind of somebody else's; its bug is not the plant's
            log.exception("request on %s", message.topic)
            refusal = Refusal("internal", f"{type(e).__name__}: {e}")
            self._refuse(usable_id(body), kind, refusal, *asker, now, fresh, self._trigger_reply(source))

    def _known(self, job_id: str, fresh: Mapping[str, Job]) -> Any:
        if job_id in fresh:
            return fresh[job_id]
        return self.entries[job_id].job if job_id in self.entries else self._spool.find(job_id)

    def _again(self, job_id: str, known: Any, asker: _Asker, fresh: Mapping[str, Job], now: float, plc: Reply | None) -> None:
        """The same request once more: answered with the state or result that it has."""
        entry = self.entries.get(job_id)
        if job_id in fresh:
            return
        if entry is not None:
            if asker[0]:
                entry.job = replace(entry.job, response_topic=asker[0], correlation=asker[1])
            self._say(entry, now)
            return
        payload = msgspec.json.encode(known.result)
        self._bus.publish(asker[0] or self._topic(job_id, "result"), payload, correlation=asker[1], content_type=_JSON)
        if plc:
            self._bus.publish(plc.topic, msgspec.json.encode(reply.plc(known.result, plc.form)))

    def _refuse(
        self,
        job_id: str | None,
        kind: str,
        refusal: Refusal,
        response_topic: str | None,
        correlation: bytes | None,
        now: float,
        fresh: Mapping[str, Job] | None = None,
        trigger_reply: Reply | None = None,
    ) -> None:
        """The final reply to what was not taken. The topics of a job that exists never carry somebody else's refusal."""
        self.counts["refused"] += 1
        self.counts[f"refused_{refusal.code}"] += 1
        final = reply.refused(job_id or secrets.token_hex(8), kind, refusal, now)
        log.info("refused %s: %s", final["id"], refusal)
        payload = msgspec.json.encode(final)
        if response_topic:
            self._bus.publish(response_topic, payload, correlation=correlation, content_type=_JSON)
        if job_id and self._known(job_id, fresh or {}) is None:
            self._bus.publish(self._topic(job_id, "result"), payload, content_type=_JSON)
        elif not response_topic:
            self._bus.publish(f"{self.config.base}/jobs/refused", payload, content_type=_JSON)
        if trigger_reply:
            self._bus.publish(trigger_reply.topic, msgspec.json.encode(reply.plc(final, trigger_reply.form)))

    def _cancel(self, message: Message, now: float) -> None:
        job_id = message.topic.split("/")[-2]
        entry = self.entries.get(job_id)
        if message.retained or entry is None or entry.cancelled:
            if message.retained:
                self.counts["retained_refused"] += 1
            return
        entry.cancelled = True
        if entry in self.stack:
            self._worker.send({"type": "cancel", "id": job_id})
        else:
            self._finish(entry, "cancelled", {}, now)

    # ---- life of a job --------------------------------------------------------------------------------------------

    def _enter(self, entry: Entry) -> None:
        self.entries[entry.job.id] = entry
        kind = self._kinds.get(entry.job.kind)
        if kind is None or not entry.job.durable:
            return
        camera = kind.camera(typed.read(entry.job.params, kind.params))
        if camera is not None:
            frame = self._frame_path(entry.job.id)
            if frame.exists():
                entry.frame = str(frame)
            else:
                entry.waits_for_frame = True
                self._cameras.send({"type": "grab", "id": entry.job.id, "camera": camera, "to": str(frame)})

    def ask_again_for_frames(self) -> None:
        """The camera process is a new one: what the old one still owed is asked for again."""
        for entry in self.entries.values():
            if entry.waits_for_frame:
                entry.waits_for_frame = False
                self._enter(entry)

    def from_cameras(self, message: Mapping[str, Any], now: float) -> None:
        """A frame for a job, or why there is none."""
        entry = self.entries.get(message.get("id", ""))
        if entry is None or not entry.waits_for_frame:
            return
        entry.waits_for_frame = False
        if message["type"] == "frame":
            entry.frame = message["path"]
        else:
            self._finish(entry, "failed", {}, now, Refusal("input", message["message"], "params.image.camera"))

    def ephemeral(self, job: Job, then: Callable[[dict[str, Any] | None], None]) -> None:
        """A job that is not stored: `then` gets its output, or None where it came to nothing."""
        self._ephemeral[job.id] = then
        self.entries[job.id] = Entry(job)

    def drop(self, job_id: str) -> None:
        """An ephemeral job that has not started is forgotten without a word."""
        entry = self.entries.get(job_id)
        if entry is not None and entry not in self.stack:
            del self.entries[job_id], self._ephemeral[job_id]

    def dispatch(self, now: float) -> None:
        """Hands the worker what it should do now, and ends what is overdue."""
        for entry, why in dispatch.overdue(self.entries.values(), now):
            if entry in self.stack and not entry.cancelled:
                entry.cancelled = True
                self._worker.send({"type": "cancel", "id": entry.job.id})
            elif entry not in self.stack:
                self._finish(entry, "expired", {}, now, Refusal("deadline", why))
        while self._worker.ready and (best := dispatch.choose(self.entries.values(), self.stack)) is not None:
            if self.stack:
                self._move(self.stack[-1], "paused", now, "preempted")
            self.stack.append(best)
            job = best.job
            if job.start_by is not None and job.durable:
                self._spool.started(job.id)
            self._move(best, "running", now)
            self._worker.send(
                {
                    "type": "run",
                    "id": job.id,
                    "kind": job.kind,
                    "params": job.params,
                    "seed": job.seed,
                    "frame": best.frame,
                    "durable": job.durable,
                }
            )

    def from_worker(self, message: Mapping[str, Any], now: float) -> None:
        """Progress, or the end of a job."""
        entry = self.entries.get(message.get("id", ""))
        if entry is None:
            return
        if message["type"] == "step":
            if message["step"] > 0 and entry is self.stack[-1]:
                self.longest_step = max(self.longest_step, now - entry.heard_at)
            entry.heard_at = now
            entry.step, entry.steps, entry.item = message["step"], message["steps"], message["item"]
            if now - self._told.get(entry.job.id, 0.0) >= _PROGRESS_PERIOD and entry.state == "running":
                self._say(entry, now)
            return
        self.stack.remove(entry)
        if self.stack and self.stack[-1].state == "paused":
            self._move(self.stack[-1], "running", now)
        if message["type"] == "cancelled":
            late = entry.job.deadline_at is not None and now >= entry.job.deadline_at
            error = Refusal("deadline", "the deadline passed before the job was done") if late else None
            self._finish(entry, "expired" if late else "cancelled", message, now, error)
        elif message["type"] == "done":
            entry.item = entry.job.items
            self._finish(entry, "done", message, now)
        else:
            error = message["error"]
            self._finish(entry, "failed", message, now, Refusal(error["code"], error["message"], error.get("field")))

    def worker_died(self, how: str, now: float) -> None:
        """What the worker had in hand goes on in the next one; a job that kills it again at the same place is given up."""
        if self.stack and self.stack[-1].worker_died():
            guilty = self.stack.pop()
            why = f"{guilty.deaths} workers died under this job ({how})"
            self._finish(guilty, "failed", {}, now, Refusal("engine", why))
        self.worker_restarted(now, how)

    def worker_restarted(self, now: float, how: str = "restarted") -> None:
        """The worker is a new one, and knows nothing of what the old one had in hand."""
        stack, self.stack = self.stack, []
        for entry in stack:
            if entry.cancelled:
                self._finish(entry, "cancelled", {}, now)
            else:
                self._move(entry, "accepted", now, f"worker {how}")

    def _move(self, entry: Entry, state: str, now: float, reason: str | None = None) -> None:
        entry.move(state, reason)
        self._say(entry, now)

    def _finish(self, entry: Entry, state: str, facts: Mapping[str, Any], now: float, error: Refusal | None = None) -> None:
        """The one final reply: stored with its messages in one transaction, and sent from there."""
        job = entry.job
        entry.move(state)
        del self.entries[job.id]
        self._told.pop(job.id, None)
        if not job.durable:
            self.counts[f"live_{state}"] += 1
            self._ephemeral.pop(job.id)(facts.get("output") if state == "done" else None)
            return
        self.counts[state] += 1
        final = reply.result(job, state, now, facts, error)
        payload = msgspec.json.encode(final)
        messages = [Outgoing(self._topic(job.id, "result"), payload, content_type=_JSON)]
        if job.response_topic:
            messages.append(Outgoing(job.response_topic, payload, None, job.correlation, _JSON))
        if job.deliver == "mqtt":
            messages[:0] = [
                Outgoing(self._topic(job.id, f"artifact/{a['name']}"), None, a["path"], None, a["media_type"])
                for a in final["artifacts"]
            ]
        if plc := self._trigger_reply(job.source):
            messages.append(Outgoing(plc.topic, msgspec.json.encode(reply.plc(final, plc.form))))
        self._unstored.append((job.id, final, messages))
        self.store(now)

    def store(self, now: float) -> None:
        """Stores the results that are not stored yet; where the disk does not take them they are kept for the next call."""
        try:
            while self._unstored:
                job_id, final, messages = self._unstored[0]
                self._spool.finish(job_id, final, messages, now)
                self._unstored.pop(0)
                self._frame_path(job_id).unlink(missing_ok=True)
                shutil.rmtree(self._work_folder / folder_name(job_id), ignore_errors=True)
                self.outbox.wake()
        except SpoolError as e:
            log.error("%s; %d results wait for it", e, len(self._unstored))

    # ---- words ----------------------------------------------------------------------------------------------------

    def _say(self, entry: Entry, now: float) -> None:
        """The entry's state as an event, on the job's topic and to whoever asked for it."""
        job = entry.job
        if not job.durable:
            return
        self._told[job.id] = now
        payload = msgspec.json.encode(reply.event(entry, now))
        self._bus.publish(self._topic(job.id, "event"), payload, content_type=_JSON)
        if job.response_topic:
            self._bus.publish(job.response_topic, payload, correlation=job.correlation, content_type=_JSON)

    def _reply_topic(self, message: Message) -> str | None:
        """The request's Response Topic, unless it must not be published to: our own topics are not a client's to write."""
        topic, base = message.response_topic, self.config.base
        usable = topic and not topic.startswith("$") and not set(topic) & set("+#\0") and len(topic.encode()) <= 65535
        ours = (f"{base}/jobs/", f"{base}/sensors/", f"{base}/status", f"{base}/telemetry")
        return topic if usable and topic and not topic.startswith(ours) else None

    def _topic(self, job_id: str, what: str) -> str:
        return f"{self.config.base}/jobs/{job_id}/{what}"

    def _trigger_reply(self, source: str) -> Reply | None:
        trigger = self.config.triggers.get(source)
        return trigger.reply if trigger else None

    @property
    def _work_folder(self) -> Path:
        return Path(self.config.state_dir) / "work"

    def _frame_path(self, job_id: str) -> Path:
        return Path(self.config.state_dir) / "frames" / f"{job_id}.png"
