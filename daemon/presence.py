"""What the plant sees of this gateway as a whole: its retained status and will, and who else is called so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from .bus import Bus, Connected, Message
from .notify import notify
from .telemetry import INSTANCE

log = logging.getLogger(__name__)

_NAMESAKE_S = 300.0
OFFLINE = msgspec.json.encode({"state": "offline"})


class Presence:
    """Used by one thread. `birth(broker)` is the status as it should be; `broker`: what is wrong with the connection."""

    def __init__(self, base: str, started: str, bus: Bus, birth: Callable[[list[str]], dict[str, Any]]):
        self._base, self._started, self._bus, self._birth = base, started, bus, birth
        self.topic = f"{base}/status"
        self.note = ""
        """The last change of state, in words."""
        self._told: dict[str, Any] = {}
        self._denied: tuple[str, ...] = ()
        self._twin: str | None = None
        self._twin_until = 0.0

    def connected(self, event: Connected, where: str) -> None:
        """The broker took us, and of our subscriptions all but those that `event` names."""
        self._denied, self._told = event.refused, {}
        self.tell()
        if event.refused:
            self.say(f"connected, but the broker does not allow us {', '.join(event.refused)}: check its ACL")
        else:
            self.say(f"connected to {where}")

    def tell(self) -> None:
        """Publishes the birth where it is not what the broker has of us."""
        if not self._bus.connected:
            return
        self._twin = self._twin if time.monotonic() < self._twin_until else None
        broker = [f"the broker does not allow us {topic}" for topic in self._denied]
        birth = self._birth([*broker, *([self._twin] if self._twin else [])])
        if birth != self._told:
            mid = self._bus.publish(self.topic, msgspec.json.encode(birth), retain=True)
            self._told = birth if mid is not None else {}

    def hear(self, message: Message) -> None:
        """Our own retained status, as others see it: a will that came late is put right, a namesake is named."""
        try:
            said = msgspec.json.decode(message.payload)
            state, instance = said["state"], said.get("instance")
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            said, state, instance = {}, "not ours", None
        if instance == INSTANCE:
            return
        # A retained one may be who we were before this start; one that started after us is somebody else.
        if state == "online" and (not message.retained or str(said.get("started")) > self._started):
            self.namesake(f"another denoised says that it is '{self._base}': give each gateway its own gateway.id")
        elif not message.retained:
            self._told = {}

    def namesake(self, why: str) -> None:
        """Somebody else is us: named for some minutes after it was last seen, and not fought."""
        if self._twin is None:
            log.error("%s", why)
        self._twin, self._twin_until = why, time.monotonic() + _NAMESAKE_S
        self._bus.calm()
        self.tell()  # at once: we may not stay connected for long

    def say(self, note: str) -> None:
        """For systemd, the log and the telemetry."""
        if note != self.note:
            self.note = note
            log.info("%s", note)
            notify(f"STATUS={note}")
