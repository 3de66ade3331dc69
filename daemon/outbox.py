"""Drains the spool's outbox onto the bus, with a window of its own: what the broker has not acknowledged stays stored."""

from __future__ import annotations

import logging
from pathlib import Path

from .bus import Bus, Delivered
from .spool import Outgoing, Spool

log = logging.getLogger(__name__)

_WINDOW = 10
_OVERHEAD = 256
"""Bytes of a packet beside topic, payload and correlation data."""


class Outbox:
    """Messages under way, by the broker's message id."""

    def __init__(self, spool: Spool, bus: Bus):
        self._spool, self._bus = spool, bus
        self._flying: dict[int, int] = {}
        self._acknowledged: list[int] = []
        self._last = 0
        self._waiting = True
        self.too_large = 0
        """Messages that this broker does not take, given up."""

    def delivered(self, event: Delivered) -> None:
        """The broker has one of our messages."""
        seq = self._flying.pop(event.mid, None)
        if seq is not None:
            self._acknowledged.append(seq)

    def pump(self) -> None:
        """Forgets what has arrived, and sends what the window takes. Cheap where there is nothing to do."""
        if self._acknowledged:
            self._spool.sent(self._acknowledged)
            self._acknowledged.clear()
        free = _WINDOW - len(self._flying)
        if free <= 0 or not self._bus.connected or not self._waiting:
            return
        rows = self._spool.outgoing(self._last, free)
        self._waiting = len(rows) == free
        for seq, message in rows:
            payload = self._payload(message)
            if payload is not None:
                mid = self._bus.publish(
                    message.topic, payload, correlation=message.correlation, content_type=message.content_type
                )
                if mid is None:
                    self._waiting = True
                    return
                self._flying[mid] = seq
            else:
                self._acknowledged.append(seq)
            self._last = seq

    def _payload(self, message: Outgoing) -> bytes | None:
        """The bytes to send, or None (and said so) where the message can never be delivered."""
        try:
            payload = message.payload if message.payload is not None else Path(message.path or "").read_bytes()
        except OSError as e:
            log.error("artifact for %s is not there any more: %s", message.topic, e)
            return None
        size = len(payload) + len(message.topic.encode()) + len(message.correlation or b"") + _OVERHEAD
        if self._bus.max_packet is not None and size > self._bus.max_packet:
            # Sending it would end the connection, again and again, and hold up everything behind it.
            log.error("%s: %d bytes are more than the broker takes (%d)", message.topic, size, self._bus.max_packet)
            self.too_large += 1
            return None
        return payload

    def wake(self) -> None:
        """There is something new in the spool, or a connection again."""
        self._waiting = True
