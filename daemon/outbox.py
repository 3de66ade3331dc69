"""Everything that this daemon says on the bus, by class: what must arrive lies in the spool, what may be lost is counted.

MQTT allows only so many messages of QoS 1 under way (MQTT 5.0, section 4.9), and paho keeps to its own number and forgets
on exit; so the window is ours: a message leaves its queue when there is room, and the spool when the broker has it.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .bus import Bus, Delivered
from .spool import Outgoing, Spool, SpoolError

log = logging.getLogger(__name__)

_WINDOW = 10
"""Most messages under way: no broker's Receive Maximum that we know of is smaller, and a smaller one is kept to."""
_OVERHEAD = 256
"""Bytes of a packet beside topic, payload and correlation data."""
_SETTLE_S = 1.0
"""What has arrived is deleted with the next transaction that comes anyway, or after this."""
_HOLD_S = 5.0
"""Wait after the broker said that it cannot take a message now (quota, busy)."""
_RESERVED = 2
"""Places of the window that samples and events leave to results."""
_KEEP = {"sample": 4096, "event": 4096}
"""Messages kept per class while there is no broker or no room; the newest are worth more than the oldest."""


@dataclass(frozen=True)
class _Flying:
    """A message under way: its row in the spool, where it has one, and the job whose asker it is for."""

    seq: int | None = None
    asker_of: str | None = None


class Outbox:
    """Used by one thread. `now` is gateway time."""

    def __init__(self, spool: Spool, bus: Bus):
        self._spool, self._bus = spool, bus
        self._queues: dict[str, deque[tuple[Outgoing, str | None]]] = {name: deque() for name in _KEEP}
        self._flying: dict[int, _Flying] = {}
        self._last = 0
        self._waiting = True
        self._settle_at: float | None = None
        self._hold_until = 0.0
        self.dropped: Counter[str] = Counter()
        """Messages by class that nobody will get: there was no broker, no room, or they were too many."""
        self.undeliverable: Counter[str] = Counter()
        """Messages given up: `too-large` for this broker, `refused` by it, `invalid` for any, or the `file` is gone."""
        self._askers: set[str] = set()
        self.deaf: dict[str, float] = {}
        """Jobs whose Response Topic nobody reads (MQTT 5.0, reason 0x10), and since when."""

    # ---- saying ---------------------------------------------------------------------------------------------------

    def say(self, kind: str, message: Outgoing, asker_of: str | None = None) -> None:
        """A message of class `sample` or `event`: sent as soon as there is room, the oldest dropped where too many wait."""
        queue = self._queues[kind]
        if len(queue) >= _KEEP[kind]:
            queue.popleft()
            self.dropped[kind] += 1
        queue.append((message, asker_of))
        if asker_of is not None:
            self._askers.add(asker_of)
        self._send_queues()

    def progress(self, message: Outgoing, asker_of: str | None = None) -> None:
        """Sent now or never: a progress that comes late is wrong."""
        if self._queues["event"] or self._room <= 0 or not self._send(message, _Flying(asker_of=asker_of)):
            self.dropped["progress"] += 1

    def telemetry(self, topic: str, payload: bytes) -> None:
        """QoS 0, now or never: the next one is better."""
        if not self._bus.connected or self._bus.publish(topic, payload, qos=0) is None:
            self.dropped["telemetry"] += 1

    def wake(self) -> None:
        """There is something new in the spool, or a connection again."""
        self._waiting = True

    # ---- sending --------------------------------------------------------------------------------------------------

    def pump(self, now: float) -> None:
        """Sends what the window takes; of what has arrived nothing is left after a while. Cheap with nothing to do."""
        self._send_queues()
        if self._waiting and self._room > 0 and now >= self._hold_until:
            self._send_stored(self._room)
        if not self._spool.unsettled:
            self._settle_at = None
        elif self._settle_at is None:
            self._settle_at = now + _SETTLE_S
        elif now >= self._settle_at:
            self._settle(now)

    def _settle(self, now: float) -> None:
        """A disk that takes nothing is no fault of the message: the row goes later, at worst it is sent twice."""
        try:
            self._spool.settle()
        except SpoolError as e:
            self._settle_at = now + _HOLD_S
            log.warning("%s; what was delivered stays in it for now", e)

    def due(self, now: float) -> float | None:
        """When `pump` has to be called again at the latest; None where an event will do."""
        held = self._hold_until if self._waiting and self._hold_until > now else None
        return min((at for at in (self._settle_at, held) if at is not None), default=None)

    @property
    def waiting(self) -> dict[str, int]:
        """Messages by class that are still to be delivered."""
        return {"result": self._spool.outbox_size(), **{name: len(queue) for name, queue in self._queues.items()}}

    @property
    def _room(self) -> int:
        limit = min(_WINDOW, self._bus.receive_maximum or _WINDOW)
        return limit - len(self._flying) if self._bus.connected else 0

    def _send_queues(self) -> None:
        reserved = min(_RESERVED, (self._bus.receive_maximum or _WINDOW) - 1) if self._waiting else 0
        for queue in self._queues.values():
            while queue and self._room > reserved and self._send(queue[0][0], _Flying(asker_of=queue[0][1])):
                queue.popleft()

    def _send_stored(self, count: int) -> None:
        rows = self._spool.outgoing(self._last, count)
        self._waiting = len(rows) == count
        under_way = {flying.seq for flying in self._flying.values()}
        for seq, message in rows:
            if seq not in under_way and not self._send(message, _Flying(seq)):
                self._waiting = True
                return
            self._last = seq

    def _send(self, message: Outgoing, flying: _Flying) -> bool:
        """Whether it is on its way or given up; else there is no connection any more."""
        payload = self._payload(message)
        if payload is None:
            self._done(flying)
            return True
        try:
            mid = self._bus.publish(message.topic, payload, correlation=message.correlation, content_type=message.content_type)
        except ValueError as e:
            log.error("%s cannot be published: %s", message.topic[:200], e)
            self.undeliverable["invalid"] += 1
            self._done(flying)
            return True
        if mid is not None:
            self._flying[mid] = flying
        return mid is not None

    def _payload(self, message: Outgoing) -> bytes | None:
        """The bytes to send, or None (and said so) where the message can never be delivered."""
        try:
            payload = message.payload if message.payload is not None else Path(message.path or "").read_bytes()
        except OSError as e:
            log.error("artifact for %s is not there any more: %s", message.topic, e)
            self.undeliverable["file"] += 1
            return None
        around = len(message.topic.encode()) + len(message.correlation or b"") + _OVERHEAD
        size = len(payload) + around
        if self._bus.max_packet is not None and size > self._bus.max_packet:
            # Sending it would end the connection, again and again, and hold up everything behind it.
            if (shorter := _shortened(message, self._bus.max_packet - around)) is not None:
                return shorter
            log.error("%s: %d bytes are more than the broker takes (%d)", message.topic, size, self._bus.max_packet)
            self.undeliverable["too-large"] += 1
            return None
        return payload

    # ---- what became of it ----------------------------------------------------------------------------------------

    def delivered(self, event: Delivered, now: float) -> None:
        """The broker has one of our messages, or will not have it."""
        flying = self._flying.pop(event.mid, None)
        if flying is None:
            return
        if event.again and flying.seq is not None:
            log.warning("the broker does not take a result now: %s; it is sent again in %g s", event.refused, _HOLD_S)
            self._settle(now)  # else the rows behind it that have arrived would be sent again as well
            self._last, self._waiting, self._hold_until = min(self._last, flying.seq - 1), True, now + _HOLD_S
            return
        if event.refused:
            log.error("the broker refused a message of ours: %s; check its ACL for our topics", event.refused)
            self.undeliverable["refused"] += 1
        if flying.asker_of in self._askers:
            if event.nobody:
                self.deaf.setdefault(flying.asker_of, now)
            else:
                self.deaf.pop(flying.asker_of, None)
        self._done(flying)

    def forget(self, job_id: str) -> None:
        """The job is over; whether its asker listens is of no interest any more."""
        self._askers.discard(job_id)
        self.deaf.pop(job_id, None)

    @property
    def roomy(self) -> bool:
        """Whether more may be asked of us: each request that is acknowledged has an answer, which needs a place to wait."""
        return len(self._queues["event"]) < _KEEP["event"] // 4

    def _done(self, flying: _Flying) -> None:
        if flying.seq is not None:
            self._spool.sent([flying.seq])


def _shortened(message: Outgoing, limit: int) -> bytes | None:
    """A result without its output: the state must arrive, and the artifacts lie as files. None for everything else."""
    if message.job is None or message.payload is None:
        return None
    result = msgspec.json.decode(message.payload)
    if not isinstance(result, dict) or not result.get("output"):
        return None
    size = len(message.payload)
    result |= {"output": {}, "reason": f"the output is left out: the broker takes no message of {size} bytes"}
    payload = msgspec.json.encode(result)
    return payload if len(payload) <= limit else None
