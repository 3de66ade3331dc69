"""Length-prefixed JSON between the supervisor and its child processes, over a socket pair. Arrays travel as files.

A frame is four bytes of length, big-endian, and that many bytes of UTF-8 JSON.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

_LENGTH = struct.Struct(">I")


class WireClosed(ConnectionError):
    """The other side is gone."""


class Wire:
    """One end of a socket pair. `send` never blocks; `flush` and `receive` move what the socket takes and has."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self._sock.setblocking(False)
        self._in, self._out = bytearray(), bytearray()

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether `flush` has more to do once the socket is writable."""
        return bool(self._out)

    def send(self, message: Any) -> None:
        """Queues a JSON-ready value and sends what goes."""
        body = msgspec.json.encode(message)
        self._out += _LENGTH.pack(len(body)) + body
        self.flush()

    def flush(self) -> None:
        """Sends what the socket takes now."""
        while self._out:
            try:
                sent = self._sock.send(self._out[: 1 << 20])
            except BlockingIOError:
                return
            except OSError as e:
                raise WireClosed(str(e)) from e
            del self._out[:sent]

    def receive(self) -> list[Any]:
        """Every whole message that has arrived; `WireClosed` once the other side is gone and all is read."""
        closed = False
        while True:
            try:
                data = self._sock.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                closed = True
                break
            self._in += data
        messages = list(self._parsed())
        if closed and not messages:
            raise WireClosed("the other side closed the connection")
        return messages

    def wait_for_one(self) -> Any:
        """Blocks until one message is there; those behind it stay for `receive`."""
        while (message := next(self._parsed(), None)) is None:
            select.select([self], [], [])
            data = self._sock.recv(1 << 16)
            if not data:
                raise WireClosed("the other side closed the connection")
            self._in += data
        return message

    def _parsed(self) -> Iterator[Any]:
        while len(self._in) >= 4:
            (size,) = _LENGTH.unpack_from(self._in)
            if len(self._in) < 4 + size:
                return
            body = bytes(self._in[4 : 4 + size])
            del self._in[: 4 + size]
            yield msgspec.json.decode(body)

    def close(self) -> None:
        """Gives the socket back."""
        self._sock.close()
