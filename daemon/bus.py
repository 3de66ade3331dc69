"""The MQTT connection, for the daemon and for the commands that talk to it. The only file that imports paho.

Its owner turns it: bytes are moved, and what came is returned, in the owner's thread, so that a request is answered without
one thread waiting for another. Only the making of a connection, which can take seconds, has a thread of its own. Messages
of QoS 1 are acknowledged by `ack`, not on arrival. Nagle's algorithm is off: it costs 40 ms per small exchange.
"""

from __future__ import annotations

import random
import select
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ..config.tree import Mqtt
from .core.reconnect import Backoff

_RECEIVE_MAXIMUM = 512
"""Requests that the broker may send before we have acknowledged one (MQTT 5): a burst beyond it waits there, not in memory."""
_MOST_AT_ONCE = 1024
"""Packets that one turn reads: what they ask for is done before more is read."""
_WITH_WILL, _NOBODY, _TAKEN_OVER = 0x04, 0x10, 0x8E
_AGAIN = (0x80, 0x83, 0x97)
"""PUBACK reasons that may pass: unspecified, implementation specific, quota exceeded (MQTT 5.0, section 3.4.2.1)."""


@dataclass(frozen=True)
class Subscription:
    """A topic filter. A command is never wanted from the broker's retained store, and seen as retained where sent so."""

    filter: str
    qos: int = 1
    command: bool = True


@dataclass(frozen=True)
class Message:
    """One message as it came; `connection` tells which connection it has to be acknowledged on."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    mid: int
    connection: int
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: float | None = None


@dataclass(frozen=True)
class Connected:
    """The broker took us and every subscription; `refused` names the filters it did not allow."""

    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone, or could not be made: why, in words. `taken_over`: another client seems to use our id.

    opened: it had come so far that our CONNECT packet went out, and with it the will.
    """

    reason: str
    taken_over: bool = False
    opened: bool = False


@dataclass(frozen=True)
class Delivered:
    """The broker answered our message of this id: it has it, or `refused` says why not, and `again` whether to try again.

    nobody: it has it, and no subscriber to give it to (MQTT 5 alone says so).
    """

    mid: int
    refused: str | None = None
    again: bool = False
    nobody: bool = False


BusEvent = Message | Connected | Disconnected | Delivered


class Bus:
    """One MQTT client, used by one thread: wait for `watched` until `due` at the latest, then `turn`."""

    def __init__(
        self,
        settings: Mqtt,
        client_id: str,
        subscriptions: Sequence[Subscription],
        will: tuple[str, bytes] | None = None,
        persistent: bool = True,
    ):
        self._settings, self._client_id, self._persistent = settings, client_id, persistent
        self.host, self.port = settings.host, settings.port
        self._subscriptions = list(subscriptions)
        self.v5 = str(settings.protocol) == "5"
        self.max_packet: int | None = None
        """Largest packet that the broker takes, where it says so (MQTT 5)."""
        self.receive_maximum: int | None = None
        """Messages of QoS 1 that it takes at once, where it says so (MQTT 5)."""
        self._events: list[BusEvent] = []
        self._backoff = Backoff()
        self._connect_at: float | None = None
        self._connecting: threading.Thread | None = None
        self._failure: Exception | None = None
        self._refusal: str | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._misc_at = 0.0
        self._connection = 0
        self._subscribing: dict[int, list[str]] = {}
        self._content_types: dict[str, Properties] = {}
        options: dict[str, Any] = {} if self.v5 else {"clean_session": not persistent}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if self.v5 else paho.MQTTv311,
            manual_ack=True,
            **options,
        )
        self._client.suppress_exceptions = True
        if will:
            self.set_will(*will)
        if settings.tls.ca:
            self._client.tls_set(settings.tls.ca, settings.tls.cert, settings.tls.key, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self._client.on_pre_connect = self._on_pre_connect
        self._client.on_socket_open = self._on_socket_open
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def set_will(self, topic: str, payload: bytes, retain: bool = True) -> None:
        """What the broker says for us when the next connection breaks."""
        self._client.will_set(topic, payload, qos=1, retain=retain)

    def start(self, at: float | None = None) -> None:
        """From now on (or from `at`, monotonic seconds) it connects, and connects again, for ever."""
        connect: dict[str, Any] = {}
        if self.v5:
            connect["properties"] = Properties(PacketTypes.CONNECT)
            connect["properties"].SessionExpiryInterval = round(self._settings.session_expiry) if self._persistent else 0
            connect["properties"].ReceiveMaximum = _RECEIVE_MAXIMUM
            connect["clean_start"] = not self._persistent
        self._client.connect_async(self._settings.host, self._settings.port, max(1, round(self._settings.keepalive)), **connect)
        self._connect_at = time.monotonic() if at is None else at

    def watched(self) -> tuple[Any, int] | None:
        """The file object to wait for, and for what (`selectors.EVENT_*`); None while it only waits for its time."""
        if self._connecting is not None:
            return self._wake_in, selectors.EVENT_READ
        sock = self._client.socket()
        if sock is None:
            return None
        return sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0)

    @property
    def due(self) -> float | None:
        """When `turn` has to be called at the latest; monotonic seconds."""
        if self._connecting is not None:
            return None
        return self._misc_at if self._client.socket() is not None else self._connect_at

    def turn(self) -> list[BusEvent]:
        """Moves what can be moved without waiting; what came of it, in order."""
        tick = time.monotonic()
        if self._connecting is not None and not self._connecting.is_alive():
            self._connecting = None
            self._wake_in.recv(16)
            if self._failure is not None:
                self._failed(self._failure)
        if self._connecting is None:
            if self._connect_at is not None and self._client.socket() is None and tick >= self._connect_at:
                self._connect()
            else:
                self._move(tick)
        events, self._events = self._events, []
        return events

    def wait(self, timeout: float) -> list[BusEvent]:
        """One turn, as soon as there is something to do and after `timeout` seconds at the latest."""
        watched, due = self.watched(), self.due
        if due is not None:
            timeout = min(timeout, due - time.monotonic())
        if watched is None:
            time.sleep(max(0.0, timeout))
        else:
            sock, events = watched
            writable = [sock] if events & selectors.EVENT_WRITE else []
            select.select([sock], writable, [], max(0.0, timeout))
        return self.turn()

    def _connect(self) -> None:
        self._failure = None
        self._connecting = threading.Thread(target=self._make_connection, daemon=True)
        self._connecting.start()

    def _make_connection(self) -> None:
        """In the thread: name look-up, TCP and TLS, all of which wait for others."""
        try:
            self._client.reconnect()
        except Exception as e:  # OSError, ssl's, and UnicodeError for a name that is none
            self._failure = e
        self._wake_out.send(b"!")

    def _move(self, tick: float) -> None:
        for _ in range(_MOST_AT_ONCE):
            sock = self._client.socket()
            if sock is None:
                break
            # TLS may hold what the kernel has given already, and says nothing to select.
            if not (isinstance(sock, ssl.SSLSocket) and sock.pending()) and not select.select([sock], [], [], 0)[0]:
                break
            self._client.loop_read()
        if self._client.want_write():
            self._client.loop_write()
        if tick >= self._misc_at:
            self._misc_at = tick + min(5.0, self._settings.keepalive / 4)
            self._client.loop_misc()  # keep-alive

    def stop(self, with_will: bool = False) -> None:
        """A clean goodbye, no event tells of it: the broker forgets the will, or publishes it (only MQTT 5.0 can ask that)."""
        self._connect_at = None
        if self._connecting is None:
            said = ReasonCode(PacketTypes.DISCONNECT, identifier=_WITH_WILL) if with_will and self.v5 else None
            self._client.disconnect(said)
            until = time.monotonic() + 1.0
            while self._client.want_write() and (left := until - time.monotonic()) > 0:
                self.wait(left)
        self._events.clear()

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us."""
        return self._connecting is None and self._client.is_connected()

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 1,
        retain: bool = False,
        correlation: bytes | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        expiry_s: int | None = None,
    ) -> int | None:
        """Sends a message; its id (to wait for `Delivered`), or None where there is no connection.

        ValueError: no broker can be sent this (a topic that is none, more than 268 435 455 bytes).
        """
        properties = None
        if self.v5 and content_type and correlation is None and not response_topic and not expiry_s:
            properties = self._content_type(content_type)
        elif self.v5 and (correlation is not None or content_type or response_topic or expiry_s):
            properties = Properties(PacketTypes.PUBLISH)
            if correlation is not None:
                properties.CorrelationData = correlation
            if content_type:
                properties.ContentType = content_type
            if response_topic:
                properties.ResponseTopic = response_topic
            if expiry_s:
                properties.MessageExpiryInterval = expiry_s
        if not self.connected:
            return None
        info = self._client.publish(topic, payload, qos, retain, properties)
        # Of QoS 1 paho keeps what it could not write, and sends it at the next connection.
        taken = info.rc == paho.MQTT_ERR_SUCCESS or (qos > 0 and info.rc != paho.MQTT_ERR_QUEUE_SIZE)
        return info.mid if taken else None

    def _content_type(self, name: str) -> Properties:
        """Made once: most of what we say differs in nothing else."""
        if name not in self._content_types:
            self._content_types[name] = Properties(PacketTypes.PUBLISH)
            self._content_types[name].ContentType = name
        return self._content_types[name]

    def ack(self, message: Message) -> None:
        """Tells the broker that the message is safe. On another connection its id would mean another message."""
        if message.qos and message.connection == self._connection:
            self._client.ack(message.mid, message.qos)

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """From now on these and no others, now if connected and at each connect."""
        gone = {s.filter for s in self._subscriptions} - {s.filter for s in subscriptions}
        self._subscriptions = list(subscriptions)
        if self.connected:
            if gone:
                self._client.unsubscribe(sorted(gone))
            self._subscribe()

    def calm(self) -> None:
        """Another client uses our id: if it takes this connection away, the next one waits long."""
        self._backoff.calm()

    def _subscribe(self) -> None:
        wanted: list[tuple[str, Any]] = []
        for s in self._subscriptions:
            if self.v5:
                keep = SubscribeOptions.RETAIN_DO_NOT_SEND if s.command else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
                wanted.append((s.filter, SubscribeOptions(qos=s.qos, retainAsPublished=s.command, retainHandling=keep)))
            else:
                wanted.append((s.filter, s.qos))
        if not wanted:
            self._events.append(Connected())
            return
        _, mid = self._client.subscribe(wanted)
        if mid is not None:
            self._subscribing[mid] = [s.filter for s in self._subscriptions]

    def _on_pre_connect(self, client: paho.Client, userdata: Any) -> None:
        self._connection += 1
        self._subscribing.clear()
        if self._settings.username is not None:
            client.username_pw_set(self._settings.username, self._password())

    def _password(self) -> str | None:
        """Read at each connect, so that a rotated password needs no restart."""
        if self._settings.password_file is None:
            return None
        try:
            return Path(self._settings.password_file).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as e:
            self._events.append(Disconnected(f"mqtt.password_file {self._settings.password_file}: {e}"))
            return None

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._refusal = f"the broker refused us: {code}"
            return
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        self.receive_maximum = getattr(properties, "ReceiveMaximum", None)
        self._backoff.connected(time.monotonic())
        self._subscribe()

    def _failed(self, error: Exception) -> None:
        self._wait_for(self._backoff.failed())
        self._events.append(Disconnected(f"no broker at {self._settings.host}:{self._settings.port}: {error}"))

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        loss = self._backoff.lost(time.monotonic(), taken_over=code.value == _TAKEN_OVER)
        self._wait_for(loss.longest)
        reason, self._refusal = self._refusal or f"connection to the broker lost: {code}", None
        if loss.taken_over:
            reason += f"; it seems that another client uses our id '{self._client_id}': give each gateway its own gateway.id"
        self._events.append(Disconnected(reason, loss.taken_over, opened=True))

    def _wait_for(self, longest: float) -> None:
        """Full jitter, so that two hundred gateways do not come back in the same second after a broker's restart."""
        if self._connect_at is not None:
            self._connect_at = time.monotonic() + random.uniform(0.05, longest)

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        filters = self._subscribing.pop(mid, None)
        if filters is not None:
            refused = tuple(f for f, code in zip(filters, codes) if code.is_failure)
            self._events.append(Connected(refused))

    def _on_message(self, client: paho.Client, userdata: Any, m: paho.MQTTMessage) -> None:
        p = m.properties
        self._events.append(
            Message(
                topic=m.topic,
                payload=bytes(m.payload),
                qos=m.qos,
                retained=bool(m.retain),
                mid=m.mid,
                connection=self._connection,
                response_topic=getattr(p, "ResponseTopic", None),
                correlation=getattr(p, "CorrelationData", None),
                expiry_s=getattr(p, "MessageExpiryInterval", None),
            )
        )

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, code: Any, properties: Any) -> None:
        refused = str(code) if code.is_failure else None
        self._events.append(Delivered(mid, refused, code.value in _AGAIN, code.value == _NOBODY))
