"""MQTT packets, as far as this suite looks into them: a byte stream cut into packets, PUBLISH read and written.

It shares no code with the daemon or its library, so that a fault of theirs is not repeated here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
PINGREQ = b"\xc0\0"


@dataclass(frozen=True)
class Packet:
    """One control packet: its kind, the flags beside it, and everything behind the length."""

    kind: int
    flags: int
    body: bytes

    @property
    def mid(self) -> int:
        """The packet id of a PUBACK or SUBACK."""
        number: int = struct.unpack_from(">H", self.body)[0]
        return number

    @property
    def reached_nobody(self) -> bool:
        """Whether this PUBACK of MQTT 5 says that no subscriber was there (reason code 0x10)."""
        return len(self.body) > 2 and self.body[2] == 0x10


@dataclass(frozen=True)
class Publish:
    """A message on its way; `mid` is 0 where QoS is 0."""

    topic: str
    payload: bytes
    mid: int
    retain: bool


class Splitter:
    """Bytes in, whole packets out."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that these bytes complete."""
        self._bytes += data
        packets = []
        while (head := _length(self._bytes, 1)) is not None:
            size, start = head
            if len(self._bytes) < start + size:
                break
            packets.append(Packet(self._bytes[0] >> 4, self._bytes[0] & 15, bytes(self._bytes[start : start + size])))
            del self._bytes[: start + size]
        return packets


def _length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A variable byte integer at `at` and where it ends; None where not all of it is there."""
    value = 0
    for n in range(4):
        if at + n >= len(data):
            return None
        value |= (data[at + n] & 127) << 7 * n
        if data[at + n] < 128:
            return value, at + n + 1
    raise ValueError("a length of more than four bytes")


def protocol(connect: Packet) -> int:
    """4 for MQTT 3.1.1, 5 for MQTT 5."""
    return connect.body[6]


def read(packet: Packet, version: int) -> Publish:
    """A PUBLISH; MQTT 5 has properties between packet id and payload."""
    (size,) = struct.unpack_from(">H", packet.body)
    topic, at, mid = packet.body[2 : 2 + size].decode(), 2 + size, 0
    if packet.flags & 6:
        (mid,) = struct.unpack_from(">H", packet.body, at)
        at += 2
    if version == 5:
        properties = _length(packet.body, at)
        assert properties is not None
        at = properties[1] + properties[0]
    return Publish(topic, packet.body[at:], mid, bool(packet.flags & 1))


def connect(client_id: str, keepalive: int) -> bytes:
    """A CONNECT of MQTT 5 with a clean session and no properties."""
    return _packet(CONNECT, 0, _text("MQTT") + bytes([5, 2]) + struct.pack(">H", keepalive) + b"\0" + _text(client_id))


def subscribe(topic_filter: str) -> bytes:
    """One filter, QoS 1, packet id 1."""
    return _packet(SUBSCRIBE, 2, b"\0\1\0" + _text(topic_filter) + b"\1")


def publish(message: Publish) -> bytes:
    """A PUBLISH of MQTT 5, QoS 1."""
    body = _text(message.topic) + struct.pack(">H", message.mid) + b"\0" + message.payload
    return _packet(PUBLISH, 2 | message.retain, body)


def puback(mid: int) -> bytes:
    """The answer to a PUBLISH of QoS 1."""
    return _packet(PUBACK, 0, struct.pack(">H", mid))


def _packet(kind: int, flags: int, body: bytes) -> bytes:
    size, left = b"", len(body)
    while True:
        left, digit = divmod(left, 128)
        size += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([kind << 4 | flags]) + size + body


def _text(words: str) -> bytes:
    data = words.encode()
    return struct.pack(">H", len(data)) + data
