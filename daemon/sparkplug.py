"""The gateway as a Sparkplug B 3.0 edge node: a connection of its own, what the daemon says as metrics, commands as requests.

Sparkplug wants a clean session with a will of its own (operational behaviour, edge node session establishment), jobs want the
opposite; so this is a second client. `core/sparkplug.py` decides what is said and when, `core/sparkplug_tags.py` what there
is to say; here both meet the broker.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ..config.tree import Config
from . import bus
from .bus import Bus, Connected, Disconnected, Subscription
from .core import sparkplug_tags as tags
from .core.gaps import Sample
from .core.intake import ID
from .core.sparkplug import Edge
from .core.sparkplug_metric import Message, Value

log = logging.getLogger(__name__)

_NAMESPACE = "spBv1.0"
_LARGEST, _LARGEST_STATE, _LARGEST_REQUEST = 65536, 1024, 16384
"""Bytes of a command, of a host's STATE and of a job request in a metric; births repeat the last, so it is the smallest."""
_OVERHEAD = 64
"""Bytes of a PUBLISH packet beside topic and payload."""
_WALK_S = 2.0
"""Between two brokers, both of which say that the primary host is offline."""


@dataclass(frozen=True)
class _State:
    """What a host application says of itself (payloads, STATE)."""

    online: bool
    timestamp: float


class Sparkplug:
    """Used by one thread: wait for `watched` until `due` at the latest, then `turn`.

    kinds: of job that can be asked for. wall: the clock for time stamps, seconds since 1970.
    OSError: the library protobuf is not there.
    """

    def __init__(self, config: Config, kinds: Iterable[str], wall: Callable[[], float]):
        assert config.sparkplug is not None
        settings, self._base, self._kinds, self._wall = config.sparkplug, config.base, sorted(kinds), wall
        self._codec = _codec()
        group, node = settings.group, settings.node or config.gateway.id
        self._topic = {
            kind: f"{_NAMESPACE}/{group}/{kind}/{node}"
            for kind in ("NBIRTH", "NDATA", "NDEATH", "NCMD", "DBIRTH", "DDATA", "DDEATH")
        }
        self._host = settings.primary_host
        subscriptions = [Subscription(self._topic["NCMD"])]
        if self._host is not None:
            subscriptions.append(Subscription(f"{_NAMESPACE}/STATE/{self._host}", command=False))
        addresses = settings.brokers or (config.mqtt,)
        self._buses = [
            Bus(replace(config.mqtt, host=a.host, port=a.port), config.sparkplug_client_id, subscriptions, persistent=False)
            for a in addresses
        ]
        self._bus = self._buses[0]
        self._bd_seq_file = Path(config.state_dir) / "sparkplug-bdseq"
        self._edge = Edge(
            self._host is not None, self._last_bd_seq(), settings.keep, settings.aliases, brokers=len(self._buses)
        )
        self._note = "connecting"
        self._refused = 0
        self._too_large = False
        self._edge.declare(None, tags.node(self._kinds))
        self._tell([(tags.REFUSED, 0)])

    def configure(self, config: Config, status: Mapping[str, Any]) -> None:
        """What there is now, also after a reload: devices from the configuration, the rest from the daemon's own status."""
        models = {m["kind"]: f"{m['name']} {m['version']}" for m in reversed(status["models"])}  # the first is the default
        self._tell((tags.ACTIVE.format(kind), models.get(kind)) for kind in self._kinds)
        self._tell((f"Properties/{name}", str(status[name.lower()])) for name in tags.PROPERTIES)
        wanted = {_camera(name): list(tags.camera()) for name in config.cameras}
        wanted |= {_group(name): list(tags.group(group.tags)) for name, group in config.sensors.items()}
        for gone in set(self._edge.devices()) - wanted.keys():
            self._edge.remove(gone)
        for device, metrics in wanted.items():
            self._edge.declare(device, metrics)

    # ---- the connection -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """From now on it connects, and connects again, for ever."""
        self._connect(None)

    def watched(self) -> tuple[Any, int] | None:
        """The file object to wait for, and for what; None while it only waits for its time."""
        return self._bus.watched()

    @property
    def due(self) -> float | None:
        """When `turn` has to be called at the latest; monotonic seconds."""
        speaks = self._edge.due(time.monotonic()) if self._bus.connected and not self._stalled else None
        return min((at for at in (self._bus.due, speaks) if at is not None), default=None)

    def turn(self) -> list[bus.Message]:
        """Moves what can be moved without waiting; what hosts asked for, as requests for the reception."""
        requests: list[bus.Message] = []
        for event in self._bus.turn():
            if isinstance(event, bus.Message):
                self._bus.ack(event)
                requests += self._hear(event)
            elif isinstance(event, Connected):
                self._connected(event)
            elif isinstance(event, Disconnected) and (event.opened or self._bus.due is not None):
                self._say(f"no connection: {event.reason}")
                self._lost(event.opened, self._bus.due)
        if self._bus.connected and (self._edge.leaving or not self._stalled):
            self._publish()
        return requests

    def stop(self) -> None:
        """The host is told that we go."""
        if self._bus.connected:
            self._send(self._edge.death(self._wall()))
        self._bus.stop(with_will=True)

    def counts(self) -> dict[str, Any]:
        """For telemetry."""
        edge = self._edge
        return {
            "state": edge.state,
            "note": self._note,
            "waiting": edge.waiting,
            "dropped": edge.dropped,
            "refused": self._refused,
        }

    @property
    def _stalled(self) -> bool:
        """The broker does not take what it was sent: paho would heap up what follows, the edge node knows what to leave out."""
        watched = self._bus.watched()
        return watched is not None and bool(watched[1] & selectors.EVENT_WRITE)

    def _connected(self, event: Connected) -> None:
        self._store_bd_seq()
        if event.refused:
            self._say(f"the broker does not allow us {', '.join(event.refused)}: check its ACL")
            return
        self._edge.connected(time.monotonic())
        waits = f", waiting for the primary host '{self._host}'" if self._edge.state == "waiting" else ""
        self._say(f"connected to {self._broker}{waits}")

    def _lost(self, opened: bool, again_at: float | None) -> None:
        """The next connection, at the next broker where there are several, has the next will."""
        if opened:
            self._store_bd_seq()
        self._edge.lost(opened)
        self._bus.stop()
        self._bus = self._buses[self._edge.broker]
        self._connect(again_at)

    def _connect(self, at: float | None) -> None:
        will = self._edge.death(self._wall())
        self._bus.set_will(self._topic["NDEATH"], self._codec.encode(will), retain=False)
        self._bus.start(at)

    def _publish(self) -> None:
        before = self._edge.state
        for message in self._edge.turn(self._wall(), time.monotonic()):
            self._send(message)
            if message.kind == "NBIRTH":
                self._say(f"told to hosts by {self._broker}")
        if self._edge.leaving:
            self._say(f"the primary host '{self._host}' is offline; {self._edge.waiting} values are kept")
            self._bus.stop(with_will=True)
            self._lost(True, time.monotonic() + (_WALK_S if before == "waiting" else 0.0))

    def _send(self, message: Message) -> None:
        topic = self._topic[message.kind] + (f"/{message.device}" if message.device is not None else "")
        payload = self._codec.encode(message)
        limit = self._bus.max_packet
        if limit is not None and len(payload) + len(topic.encode()) + _OVERHEAD > limit:
            if not self._too_large:
                log.error("%s: %d bytes are more than the broker takes (%d); raise its limit", topic, len(payload), limit)
            self._too_large = True
            return
        self._bus.publish(topic, payload, qos=0)

    @property
    def _broker(self) -> str:
        return f"{self._bus.host}:{self._bus.port}"

    def _say(self, note: str) -> None:
        if note != self._note:
            self._note = note
            log.info("%s", note)

    def _last_bd_seq(self) -> int | None:
        try:
            return int(self._bd_seq_file.read_text()) % 256
        except (OSError, ValueError):
            return None

    def _store_bd_seq(self) -> None:
        fresh = self._bd_seq_file.with_suffix(".new")
        try:
            fresh.write_text(f"{self._edge.bd_seq}\n")
            fresh.replace(self._bd_seq_file)
        except OSError as e:
            log.warning("bdSeq is not stored, the next start begins at another one: %s", e)

    # ---- commands -------------------------------------------------------------------------------------------------

    def _hear(self, message: bus.Message) -> list[bus.Message]:
        if message.topic != self._topic["NCMD"]:
            self._hear_state(message)
            return []
        if message.retained:
            self._refuse("a retained command fires at each reconnect; send it with retain 0")
            return []
        try:
            received = self._codec.decode(message.payload, _LARGEST)
        except ValueError as e:
            self._refuse(str(e))
            return []
        orders, refused = self._edge.command(received)
        requests = []
        for name, value in orders:
            try:
                requests.append(self._request(name, str(value)))
            except ValueError as e:
                refused.append(f"{name}: {e}")
            else:
                self._tell([(name, value)])
        for why in refused:
            self._refuse(why)
        return requests

    def _request(self, name: str, text: str) -> bus.Message:
        """What the same words would be on the plant's bus. ValueError says why they cannot be."""
        if name == tags.CANCEL:
            if not ID.fullmatch(text):
                raise ValueError("expected a job id, 1 to 64 of A-Z a-z 0-9 . _ -")
            topic, payload = f"{self._base}/jobs/{text}/cancel", b""
        else:
            kind = next(k for k in self._kinds if name == tags.SUBMIT.format(k))
            topic, payload = f"{self._base}/jobs/{kind}/submit", text.encode()
        if len(payload) > _LARGEST_REQUEST:
            raise ValueError(f"{len(payload)} bytes, at most {_LARGEST_REQUEST} are taken here; publish it on {topic}")
        return bus.Message(topic, payload, qos=0, retained=False, mid=0, connection=0)

    def _hear_state(self, message: bus.Message) -> None:
        try:
            if len(message.payload) > _LARGEST_STATE:
                raise ValueError(f"{len(message.payload)} bytes")
            state = msgspec.json.decode(message.payload, type=_State)
        except ValueError as e:  # msgspec's own and UnicodeDecodeError are ValueErrors
            log.warning("%s is no STATE of Sparkplug 3.0: %s", message.topic, e)
            return
        self._edge.host(state.online, state.timestamp)

    def _refuse(self, why: str) -> None:
        self._refused += 1
        log.info("command refused: %s", why)
        self._tell([(tags.REFUSED, self._refused), (tags.REFUSAL, why)])

    # ---- what there is to tell ------------------------------------------------------------------------------------

    def telemetry(self, message: Mapping[str, Any]) -> None:
        """What the daemon measured."""
        self._tell(tags.of_telemetry(message))

    def final(self, message: Mapping[str, Any]) -> None:
        """A job is over, or a request was refused."""
        self._tell(tags.of_final(message))

    def sample(self, group: str, sample: Sample) -> None:
        """A value of the repaired stream. What a group answers that was reconfigured meanwhile is passed over."""
        device, wall = _group(group), self._wall()
        if self._edge.has(device, sample.tag):
            for name, value, quality in tags.of_sample(sample):
                self._edge.update(device, name, value, sample.at, wall, quality)

    def frame(self, camera: str, error: str | None) -> None:
        """A camera gave a frame, or why it did not: then it is away until it gives one."""
        device, wall = _camera(camera), self._wall()
        if not self._edge.has(device, tags.FRAMES):
            return
        if error is None:
            frames = self._edge.value(device, tags.FRAMES)
            self._edge.update(device, tags.FRAMES, 1 + (frames if isinstance(frames, int) else 0), wall, wall)
            self._edge.find(device)
        else:
            self._edge.update(device, tags.LAST_ERROR, error[:256], wall, wall)
            self._edge.lose(device)

    def _tell(self, values: Iterable[tuple[str, Value]]) -> None:
        wall = self._wall()
        for name, value in values:
            self._edge.update(None, name, value, wall, wall)


def _camera(name: str) -> str:
    return f"camera-{name}"


def _group(name: str) -> str:
    return f"sensors-{name}"


def _codec() -> Any:
    """Only where it is wanted: protobuf is an extra."""
    try:
        from . import sparkplug_payload
    except ImportError as e:
        raise OSError(f"'sparkplug' is configured, but {e}: pip install 'denoised[sparkplug]'") from e
    return sparkplug_payload
