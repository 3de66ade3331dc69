"""What passed between the daemon and its broker, and what of it breaks the promise at once.

The promise starts at the daemon's own PUBACK, which only the wire between it and its broker shows: what the broker
acknowledged to a requester is the broker's word. A message of the daemon's has arrived once the broker acknowledged it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from denoised.tests.chaos.mqtt import PUBACK, PUBLISH, Packet, Publish, read
from denoised.tests.chaos.proxy import DOWN, UP, Connection


@dataclass
class Known:
    """What the wire has told about one id."""

    puback: bool = False
    """The daemon acknowledged its request."""
    accepted: bool = False
    """The daemon said so in an event."""
    refused: str | None = None
    """The code of its last refusal: a final reply to a request that was not taken, which may come again."""
    result: dict[str, Any] | None = None
    """The one final result."""
    arrived: bool = False
    """The broker acknowledged the result."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """sha256 of the artifacts that came as messages."""

    @property
    def promised(self) -> bool:
        """Whether a result must come, without the request being sent again."""
        return self.accepted or (self.puback and self.refused is None)


class Record:
    """`watch` is the proxy's; everything else is read by the test. `broken` holds what must never have happened."""

    def __init__(self, base: str):
        self._base = base
        self._lock = threading.Lock()
        self._asked: dict[Connection, list[tuple[int, str | None]]] = {}
        self._flying: dict[Connection, dict[int, str | None]] = {}
        self.ids: dict[str, Known] = {}
        self.broken: list[str] = []
        self.armed: dict[str, Callable[[], None]] = {}
        """`puback`, `result` or `arrived` -> what to do at the next one, before it goes on."""

    def known(self, job_id: str) -> Known:
        """What is known of this id."""
        with self._lock:
            return self.ids.setdefault(job_id, Known())

    def watch(self, connection: Connection, way: str, packet: Packet) -> None:
        """Every packet in both directions."""
        moment = None
        with self._lock:
            if packet.kind == PUBLISH:
                message = read(packet, connection.version)
                if way == DOWN:
                    self._asks(connection, message)
                else:
                    moment = self._says(connection, message)
            elif packet.kind == PUBACK:
                moment = self._takes(connection, packet.mid) if way == UP else self._arrives(connection, packet.mid)
        if moment and (action := self.armed.pop(moment, None)):
            action()

    def _asks(self, connection: Connection, message: Publish) -> None:
        if message.mid:
            job_id = None
            if message.topic.endswith("/submit") and not message.retain:
                job_id = _id(message.payload)
            self._asked.setdefault(connection, []).append((message.mid, job_id))

    def _takes(self, connection: Connection, mid: int) -> str | None:
        asked = self._asked.get(connection, [])
        place = next((n for n, (waiting, _) in enumerate(asked) if waiting == mid), None)
        if place is None:
            self.broken.append(f"PUBACK {mid} answers nothing that was sent on this connection")
            return None
        if place:
            self.broken.append(f"PUBACK {mid} overtakes {place} others (MQTT 5, 4.6: in the order of arrival)")
        job_id = asked.pop(place)[1]
        if job_id is None:
            return None
        self.ids.setdefault(job_id, Known()).puback = True
        return "puback"

    def _says(self, connection: Connection, message: Publish) -> str | None:
        *_, job_id, verb = ("", *message.topic.removeprefix(f"{self._base}/jobs/").split("/"))[-2:]
        if "/artifact/" in message.topic:
            job_id, _, name = message.topic.removeprefix(f"{self._base}/jobs/").split("/", 2)
            self.ids.setdefault(job_id, Known()).artifacts[name] = hashlib.sha256(message.payload).hexdigest()
            return None
        known = self.ids.setdefault(job_id, Known()) if verb in ("event", "result") else None
        if known is None:
            return None
        value = json.loads(message.payload)
        if not isinstance(value, dict) or value.get("id") != job_id:
            self.broken.append(f"{message.payload[:80]!r} was said on {message.topic}")
            return None
        if verb == "event":
            known.accepted |= value["state"] == "accepted"
            return None
        if "run_ms" not in value:  # a refusal has never run
            known.refused = value["error"]["code"]
            if known.result is not None:
                self.broken.append(f"{job_id} was refused ({known.refused}) after its result {known.result['state']}")
            return None
        if known.result is not None and known.result != value:
            self.broken.append(f"{job_id} has two results: {known.result} and {value}")
        known.result = value
        self._flying.setdefault(connection, {})[message.mid] = job_id
        return "result"

    def _arrives(self, connection: Connection, mid: int) -> str | None:
        job_id = self._flying.get(connection, {}).pop(mid, None)
        if job_id is None:
            return None
        self.ids[job_id].arrived = True
        return "arrived"


def _id(payload: bytes) -> str | None:
    try:
        value = json.loads(payload)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return value if isinstance(value, str) else None
