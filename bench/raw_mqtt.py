"""MQTT 3.1.1 on a bare socket, QoS 1, nothing but what a round trip needs: the limit that a library is held against."""

from __future__ import annotations

import socket
import struct


class RawClient:
    """Connects, subscribes to one filter, publishes and receives. Blocking; Nagle is off."""

    def __init__(self, port: int, name: str, topic_filter: str):
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._mid = 0
        self._send(0x10, _text("MQTT") + bytes([4, 2]) + struct.pack(">H", 60) + _text(name))
        assert self._packet()[0] == 0x20
        self._send(0x82, b"\0\1" + _text(topic_filter) + b"\1")
        assert self._packet()[0] == 0x90

    def publish(self, topic: str, payload: bytes) -> None:
        """QoS 1; the PUBACK is read on the way by `receive`."""
        self._mid = self._mid % 65535 + 1
        self._send(0x32, _text(topic) + struct.pack(">H", self._mid) + payload)

    def receive(self) -> tuple[str, bytes]:
        """The next message, acknowledged."""
        while True:
            kind, body = self._packet()
            if kind >> 4 != 3:
                continue
            (length,) = struct.unpack_from(">H", body)
            topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
            if kind & 0x06:
                self._send(0x40, rest[:2])
                rest = rest[2:]
            return topic, rest

    def close(self) -> None:
        """Without a word."""
        self._sock.close()

    def _send(self, kind: int, body: bytes) -> None:
        size, length = b"", len(body)
        while True:
            length, digit = divmod(length, 128)
            size += bytes([digit | (0x80 if length else 0)])
            if not length:
                break
        self._sock.sendall(bytes([kind]) + size + body)

    def _packet(self) -> tuple[int, bytes]:
        kind, size, shift = self._take(1)[0], 0, 0
        while True:
            digit = self._take(1)[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind, self._take(size)

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError("the broker closed the connection")
            self._buffer += data
        out, self._buffer = self._buffer[:count], self._buffer[count:]
        return out


def _text(words: str) -> bytes:
    data = words.encode()
    return struct.pack(">H", len(data)) + data
