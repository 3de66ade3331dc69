"""Where requests come in: submits, triggers, and what is wanted of jobs that there are. Reads, stores, acknowledges, answers.

What arrived together is stored in one commit, and only then acknowledged to the broker. What cannot be taken is answered
here and now, on topics that never show a false state of another job.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ..config.refusal import Refusal
from ..config.tree import Config, Reply
from ..plugins.kind import JobKind, Site
from .builds import Builds
from .bus import Bus, Message
from .core import reply, triggers
from .core.intake import Envelope, decode, read_request, usable_id
from .core.job import Job, digest
from .desk import Desk
from .disk import Disk
from .governor import GovernorLoop
from .results import JSON
from .spool import Outgoing, SpoolError

log = logging.getLogger(__name__)

_Asker = tuple[str | None, bytes | None]
"""Response Topic and Correlation Data of a request."""
_BACKGROUND = -1
"""The priority of kinds that run when nothing else waits."""
_ORDERS = ("cancel", "pause", "resume")


class Reception:
    """Used by one thread; `now` is gateway time."""

    def __init__(
        self,
        config: Config,
        bus: Bus,
        desk: Desk,
        kinds: Mapping[str, JobKind],
        site: Site,
        disk: Disk,
        builds: Builds,
        governor: GovernorLoop,
    ):
        self.config, self.site = config, site
        self._bus, self._desk, self._kinds, self._disk, self._builds = bus, desk, kinds, disk, builds
        self._governor = governor
        self._unacknowledged: list[Message] = []

    def take(self, messages: list[Message], now: float) -> None:
        """Messages that arrived together: stored in one commit, then acknowledged and answered."""
        fresh: dict[str, Job] = {}
        orders = []
        for message in messages:
            if self._verb(message.topic) in _ORDERS:
                orders.append(message)
            elif not (message.retained and not message.payload):  # how a retained message is taken off the broker
                self._read(message, fresh, now)
        if fresh:
            try:
                self._desk.accept(fresh.values(), now)
            except SpoolError as e:
                log.error("%s", e)
                for job in fresh.values():
                    refusal = Refusal("storage", str(e), retry_after_ms=60_000)
                    asker = (job.response_topic, job.correlation)
                    self._refuse(job.id, job.kind, refusal, asker, plc=self._desk.trigger_reply(job.source))
                fresh.clear()
        self._unacknowledged += messages
        self.acknowledge()
        for job in fresh.values():
            self._desk.enter(job, now)
            self._governor.promises.accepted(job)
        for message in orders:  # last, for the job may have come in with them
            self._order(message, now)

    def acknowledge(self) -> None:
        """In the order of arrival; not while answers pile up, so that the broker's own window holds back what comes faster."""
        if self._unacknowledged and self._desk.outbox.roomy:
            for message in self._unacknowledged:
                self._bus.ack(message)
            self._unacknowledged.clear()

    def _verb(self, topic: str) -> str:
        """The last level of our own topics, else nothing."""
        return topic.rpartition("/")[2] if topic.startswith(f"{self.config.base}/jobs/") else ""

    def _order(self, message: Message, now: float) -> None:
        if message.retained:
            self._desk.counts["retained_refused"] += 1
            return
        job_id = message.topic.split("/")[-2]
        if self._verb(message.topic) == "cancel" and self._builds.cancel(job_id):
            return
        {"cancel": self._desk.cancel, "pause": self._desk.pause, "resume": self._desk.resume}[self._verb(message.topic)](
            job_id, now
        )

    def _read(self, message: Message, fresh: dict[str, Job], now: float) -> None:
        topic, base = message.topic, self.config.base
        if self._verb(topic) == "submit":
            kind = topic[len(base) + len("/jobs/") :].rpartition("/")[0]
            self._request(kind, lambda: decode(message.payload, self.config.mqtt.max_payload), message, "submit", fresh, now)
        elif not topic.startswith(base + "/"):  # what we say ourselves never fires a trigger
            for name, trigger in self.config.triggers.items():
                if triggers.matches(trigger.topic, topic):
                    self._trigger(name, trigger, message, fresh, now)

    def _trigger(self, name: str, trigger: Any, message: Message, fresh: dict[str, Job], now: float) -> None:
        self._desk.counts["triggers"] += 1
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
            if self._answered(kind, body, asker, source, fresh, now):
                return
            around = Envelope(now, asker[0], asker[1], message.expiry_s, source)
            job = read_request(kind, body, around, self._kinds, self.site, lambda: secrets.token_hex(8))
            self._admit(len(fresh))
            if kind in self.config.policy.background_kinds:
                job = replace(job, priority=_BACKGROUND)
            fresh[job.id] = replace(job, promise=self._governor.promise(job, now, self._desk.wall()))
            return
        except Refusal as e:
            refusal = e
        except Exception as e:  # a kind of somebody else's; its bug is not the plant's
            log.exception("request on %s", message.topic)
            refusal = Refusal("internal", f"{type(e).__name__}: {e}")
        self._desk.counts["retained_refused"] += message.retained
        self._refuse(usable_id(body), kind, refusal, asker, fresh, self._desk.trigger_reply(source))

    def _admit(self, fresh: int) -> None:
        """Whether there is room for one more job: in the queue, and on the disk."""
        limit = self.config.queue.max_jobs
        if len(self._desk.entries) + fresh >= limit:
            wait = self._desk.mean_run_ms
            raise Refusal("overloaded", f"{limit} jobs are waiting already; send it again later", retry_after_ms=wait)
        if self._disk.full:
            raise Refusal("storage", f"no room on the disk: {self._disk.full}", retry_after_ms=60_000)

    def _answered(self, kind: str, body: Any, asker: _Asker, source: str, fresh: Mapping[str, Job], now: float) -> bool:
        """Whether the id is known already: the same request is answered with what it has, another one is a conflict."""
        job_id = usable_id(body)
        known = self._known(job_id, fresh) if job_id else None
        if known is None or job_id is None:
            return False
        if known != digest(kind, body):
            raise Refusal("conflict", f"job '{job_id}' exists with other content; choose another id", "id")
        if job_id not in fresh and not self._desk.say_again(job_id, asker, now):
            self._desk.results.answer(job_id, asker, self._desk.trigger_reply(source), now)
        return True

    def _known(self, job_id: str, fresh: Mapping[str, Job]) -> str | None:
        """The digest of what was asked under this id."""
        return fresh[job_id].digest if job_id in fresh else self._desk.digest(job_id)

    def _refuse(
        self,
        job_id: str | None,
        kind: str,
        refusal: Refusal,
        asker: _Asker,
        fresh: Mapping[str, Job] | None = None,
        plc: Reply | None = None,
    ) -> None:
        """The final reply to what was not taken. The topics of a job that exists never carry somebody else's refusal."""
        self._desk.counts["refused"] += 1
        self._desk.counts[f"refused_{refusal.code}"] += 1
        final = reply.refused(job_id or secrets.token_hex(8), kind, refusal, self._desk.wall())
        log.info("refused %s: %s", final["id"], refusal)
        if self._desk.results.told:
            self._desk.results.told(final)
        payload = msgspec.json.encode(final)
        if asker[0]:
            self._say(Outgoing(asker[0], payload, None, asker[1], JSON))
        if job_id and self._known(job_id, fresh or {}) is None:
            self._say(Outgoing(self._desk.topic(job_id, "result"), payload, content_type=JSON))
        elif not asker[0]:
            self._say(Outgoing(f"{self.config.base}/jobs/refused", payload, content_type=JSON))
        if plc:
            self._say(Outgoing(plc.topic, msgspec.json.encode(reply.plc(final, plc.form))))

    def _say(self, message: Outgoing) -> None:
        self._desk.outbox.say("event", message)

    def _reply_topic(self, message: Message) -> str | None:
        """The request's Response Topic, unless it must not be published to: our own topics are not a client's to write."""
        topic, base = message.response_topic, self.config.base
        usable = topic and not topic.startswith("$") and not set(topic) & set("+#\0") and len(topic.encode()) <= 65535
        ours = (f"{base}/jobs/", f"{base}/sensors/", f"{base}/status", f"{base}/telemetry")
        return topic if usable and topic and not topic.startswith(ours) else None
