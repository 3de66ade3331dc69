"""The one final reply of each job: stored with its messages in one transaction, sent from there, told again to whoever asks.

A disk that does not take them is waited for: until then they are kept in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ..config.refusal import Refusal
from ..config.tree import Reply
from .core import reply
from .outbox import Outbox
from .spool import Outgoing, Spool, SpoolError

log = logging.getLogger(__name__)

JSON = "application/json"
_STORE_AGAIN_S = 0.5


class Results:
    """Used by one thread; `now` is gateway time. `tidy(job id, now)` is called for each job whose result is stored."""

    def __init__(self, base: str, spool: Spool, outbox: Outbox, tidy: Callable[[str, float], None]):
        self._base, self._spool, self._outbox, self._tidy = base, spool, outbox, tidy
        self.told: Callable[[dict[str, Any]], None] | None = None
        """Who else wants each final reply, refusals too."""
        self._store_at = 0.0
        self._unstored: list[tuple[str, str, dict[str, Any], list[Outgoing]]] = []

    def recover(self, now: float) -> None:
        """What the last run of the daemon has left of which something was damaged."""
        for job_id in self._spool.unreadable:
            self._lost(job_id)
        for job_id in self._spool.untold:
            known = self._spool.find(job_id)
            if known and known.result:
                told = self.message(job_id, msgspec.json.encode(known.result))
                self._unstored.append((job_id, known.digest, known.result, [told]))
        self.store(now)

    def keep(self, job_id: str, digest: str, final: dict[str, Any], messages: Sequence[Outgoing], now: float) -> None:
        """The final reply to an accepted job, and what has to be said about it."""
        self._unstored.append((job_id, digest, final, list(messages)))
        self.store(now)
        if self.told:
            self.told(final)

    def store(self, now: float) -> None:
        """Stores what is not stored yet; where the disk does not take it, it is tried again."""
        if now < self._store_at:
            return
        try:
            while self._unstored:
                job_id, _, final, messages = self._unstored[0]
                self._spool.finish(job_id, final, messages, now)
                self._unstored.pop(0)
                self._tidy(job_id, now)
                self._outbox.wake()
        except SpoolError as e:
            self._store_at = now + _STORE_AGAIN_S
            log.error("%s; %d results wait for it", e, len(self._unstored))

    def unstored(self) -> set[str]:
        """Jobs whose results are not stored yet."""
        return {job_id for job_id, *_ in self._unstored}

    def digest(self, job_id: str) -> str | None:
        """The digest of what was asked under this id, however long it is over; None where it never ended."""
        waiting = next((digest for name, digest, *_ in self._unstored if name == job_id), None)
        known = self._spool.find(job_id) if waiting is None else None
        return known.digest if known else waiting

    def answer(self, job_id: str, asker: tuple[str | None, bytes | None], plc: Reply | None, now: float) -> None:
        """Tells the result of a job that is over, once more. One that is not stored yet is told when it is: it may change."""
        waiting = next((messages for name, _, _, messages in self._unstored if name == job_id), None)
        if waiting is not None:
            if asker[0]:
                result = next(m for m in waiting if m.topic == topic(self._base, job_id, "result"))
                waiting.append(replace(result, topic=asker[0], correlation=asker[1]))
            return
        known = self._spool.find(job_id)
        if known is None or known.result is None:  # a row that the disk has kept no more than the name of
            self._lost(job_id)
            self.store(now)
            return
        payload = msgspec.json.encode(known.result)
        where = asker[0] or topic(self._base, job_id, "result")
        self._outbox.say("event", Outgoing(where, payload, None, asker[1], JSON))
        if plc:
            self._outbox.say("event", Outgoing(plc.topic, msgspec.json.encode(reply.plc(known.result, plc.form))))

    def message(self, job_id: str, payload: bytes) -> Outgoing:
        """The result on the job's own topic."""
        return Outgoing(topic(self._base, job_id, "result"), payload, content_type=JSON, job=job_id)

    def _lost(self, job_id: str) -> None:
        """The final reply to an accepted job whose request cannot be read any more."""
        error = Refusal("storage", "the stored request was damaged; send it again under another id")
        final = reply.refused(job_id, "", error, self._spool.clock.wall())
        self._unstored.append((job_id, "", final, [self.message(job_id, msgspec.json.encode(final))]))


def topic(base: str, job_id: str, what: str) -> str:
    """One of a job's own topics."""
    return f"{base}/jobs/{job_id}/{what}"
