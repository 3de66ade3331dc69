"""A plant client in a few calls, for the commands that talk to a running daemon and for the demo's watcher."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ..config.tree import Mqtt
from .bus import Bus, Connected, Disconnected, Message, Subscription


class NoBroker(ConnectionError):
    """No connection within the time given: why, in words."""


class Client:
    """A short-lived MQTT client (`with Client(...) as c`), used by one thread; messages are acknowledged as they are read."""

    def __init__(self, settings: Mqtt, filters: Sequence[str], timeout: float = 5.0):
        name = f"denoised-cli-{secrets.token_hex(4)}"
        self.bus = Bus(settings, name, [Subscription(f, command=False) for f in filters], persistent=False)
        self._settings, self._timeout = settings, timeout
        self._came: deque[Message] = deque()
        self._ready, self._why = False, "no answer"

    def __enter__(self) -> Client:
        """Connected and subscribed, or `NoBroker`."""
        self.bus.start()
        until = time.monotonic() + self._timeout
        while not self._ready and (left := until - time.monotonic()) > 0:
            self._take(left)
        if self._ready:
            return self
        self.bus.stop()
        raise NoBroker(f"no connection to {self._settings.host}:{self._settings.port} in {self._timeout:g} s: {self._why}")

    def __exit__(self, *error: object) -> None:
        """Says goodbye."""
        self.bus.stop()

    def messages(self, seconds: float | None = None) -> Iterator[Message]:
        """Every message as it comes; ends after `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            if self._came:
                message = self._came.popleft()
                self.bus.ack(message)
                yield message
                continue
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0:
                return
            self._take(left)

    def publish(self, topic: str, value: Any, **properties: Any) -> None:
        """A JSON-ready value (bytes go as they are), QoS 1."""
        self.bus.publish(topic, value if isinstance(value, bytes) else msgspec.json.encode(value), **properties)
        self._take(0.0)  # what the broker acknowledged meanwhile makes room for more

    def _take(self, timeout: float) -> None:
        for event in self.bus.wait(timeout):
            if isinstance(event, Message):
                self._came.append(event)
            elif isinstance(event, Connected):
                self._ready = True
            elif isinstance(event, Disconnected):
                self._why = event.reason
