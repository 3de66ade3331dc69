"""A TCP proxy between the daemon and its broker: cuts, goes half-open, delays, and shows what passes to a watcher.

Half-open is what a pulled plug or a forgetful firewall leaves: bytes vanish, nobody is told. A connection that has lost a
byte never carries another one in that direction, and where one side gives it up the other is not told either.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from denoised.tests.chaos.mqtt import CONNECT, Packet, Splitter, protocol

UP, DOWN = "up", "down"
"""From the daemon to the broker, and back."""


class Connection:
    """One connection of the daemon through the proxy; `version` is the MQTT version that it speaks."""

    def __init__(self, near: socket.socket, far: socket.socket):
        self.ends = {UP: (near, far), DOWN: (far, near)}
        self.lost: set[str] = set()
        """The directions in which bytes have vanished."""
        self.version = 0

    def cut(self) -> None:
        """Both sides see a reset."""
        for end in self.ends[UP]:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens on `port` of loopback and hands on to the broker's. `watch` sees every whole packet before it goes on.

    port: 0 for one that is free.
    """

    def __init__(self, broker_port: int, watch: Callable[[Connection, str, Packet], None], port: int = 0):
        self._broker_port, self._watch = broker_port, watch
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[Connection] = []
        self.swallow: set[str] = set()
        """Directions in which everything vanishes now."""
        self.delay = 0.0
        """Seconds that each piece waits before it goes on."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Resets every connection."""
        for connection in self._connections:
            connection.cut()
        self._connections.clear()

    def heal(self) -> None:
        """From now on bytes pass as they come; what lost some stays as it is."""
        self.swallow, self.delay = set(), 0.0

    def close(self) -> None:
        """No more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would let one more in
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                try:
                    far = socket.create_connection(("127.0.0.1", self._broker_port))
                except OSError:  # the broker is dead, and so its host refuses
                    near.close()
                    continue
                connection = Connection(near, far)
                self._connections.append(connection)
                for way in (UP, DOWN):
                    threading.Thread(target=self._pump, args=(connection, way), daemon=True).start()

    def _pump(self, connection: Connection, way: str) -> None:
        source, target = connection.ends[way]
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        splitter = Splitter()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                for packet in splitter.feed(data):
                    if packet.kind == CONNECT and way == UP:
                        connection.version = protocol(packet)
                    self._watch(connection, way, packet)
                if self.delay:
                    time.sleep(self.delay)
                if way in self.swallow:
                    connection.lost.add(way)
                if way not in connection.lost:
                    try:
                        target.sendall(data)
                    except OSError:
                        if not connection.lost:
                            raise
                        connection.lost.add(way)
        source.close()
        if not connection.lost:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            target.close()
