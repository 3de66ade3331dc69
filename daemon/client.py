"""A plant client in a few calls, for the commands that talk to a running daemon and for the demo's watcher."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ..config.tree import Mqtt
from .bus import Bus, BusEvent, Connected, Disconnected, Message, Subscription


class NoBroker(ConnectionError):
    """No connection within the time given: why, in words."""


class Client:
    """A short-lived MQTT client (`with Client(...) as c`); messages are acknowledged as they are read."""

    def __init__(self, settings: Mqtt, filters: Sequence[str], timeout: float = 5.0):
        self._events: queue.SimpleQueue[BusEvent] = queue.SimpleQueue()
        name = f"denoised-cli-{secrets.token_hex(4)}"
        wanted = [Subscription(f, command=False) for f in filters]
        self.bus = Bus(settings, name, wanted, self._events.put, persistent=False)
        self._settings, self._timeout = settings, timeout

    def __enter__(self) -> Client:
        """Connected and subscribed, or `NoBroker`."""
        self.bus.start()
        until, why = time.monotonic() + self._timeout, "no answer"
        while (left := until - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(event, Connected):
                return self
            if isinstance(event, Disconnected):
                why = event.reason
        self.bus.stop()
        raise NoBroker(f"no connection to {self._settings.host}:{self._settings.port} in {self._timeout:g} s: {why}")

    def __exit__(self, *error: object) -> None:
        """Says goodbye."""
        self.bus.stop()

    def messages(self, seconds: float | None = None) -> Iterator[Message]:
        """Every message as it comes; ends after `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(event, Message):
                self.bus.ack(event)
                yield event

    def publish(self, topic: str, value: Any, **properties: Any) -> None:
        """A JSON-ready value (bytes go as they are), QoS 1."""
        self.bus.publish(topic, value if isinstance(value, bytes) else msgspec.json.encode(value), **properties)
