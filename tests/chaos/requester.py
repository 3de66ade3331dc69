"""A plant's client on a bare socket: sends requests, knows which of them the broker took, and hears the results."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

from denoised.tests.chaos import mqtt
from denoised.tests.chaos.mqtt import PUBACK, PUBLISH, SUBACK, Publish, Splitter

_KEEPALIVE = 60


class Requester:
    """Connects again for ever, with a clean session: what was under way is lost, as with a careless client."""

    def __init__(self, port: int, base: str):
        self._port, self._base = port, base
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._mid = 0
        self._waiting: dict[int, str] = {}
        self.taken: set[str] = set()
        """The ids whose request the broker acknowledged, since `forget`."""
        self.results: dict[str, list[Any]] = {}
        """Every message on an id's result topic, as the plant saw them."""
        self._closed = False
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, request: dict[str, Any], retain: bool = False) -> None:
        """A toy job; nothing is sent where there is no connection."""
        self.send("jobs/toy/submit", json.dumps(request).encode(), request["id"], retain)

    def send(self, topic: str, payload: bytes, job_id: str = "", retain: bool = False) -> None:
        """On a topic below the daemon's own, QoS 1."""
        with self._lock, contextlib.suppress(OSError):
            if self._sock is not None:
                self._mid = self._mid % 60000 + 2
                self._waiting[self._mid] = job_id
                self._sock.sendall(mqtt.publish(Publish(f"{self._base}/{topic}", payload, self._mid, retain)))

    def forget(self) -> None:
        """The broker lost its memory, and with it every request that it had taken and not handed on."""
        while self._sock is not None:  # what it said before it died is still being read
            time.sleep(0.01)
        self.taken.clear()

    @property
    def connected(self) -> bool:
        """Whether the broker has us and our subscription."""
        return self._sock is not None

    def close(self) -> None:
        """Without a word."""
        self._closed = True
        with contextlib.suppress(OSError, AttributeError):
            self._sock.close()  # type: ignore[union-attr]

    def _run(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(_KEEPALIVE / 2)
                # Not to the requests themselves: the broker shall say of them when nobody else was there.
                hello = mqtt.connect(f"requester-{self._base[-8:]}", _KEEPALIVE)
                sock.sendall(hello + mqtt.subscribe(f"{self._base}/jobs/+/result"))
                self._listen(sock)
            with self._lock:
                self._sock = None
                self._waiting.clear()
            time.sleep(0.05)

    def _listen(self, sock: socket.socket) -> None:
        splitter = Splitter()
        while True:
            try:
                data = sock.recv(65536)
            except TimeoutError:
                with self._lock:
                    sock.sendall(mqtt.PINGREQ)
                continue
            if not data:
                return
            for packet in splitter.feed(data):
                if packet.kind == SUBACK:
                    self._sock = sock
                elif packet.kind == PUBACK:
                    job_id = self._waiting.pop(packet.mid, "")
                    if not packet.reached_nobody:
                        self.taken.add(job_id)
                elif packet.kind == PUBLISH:
                    self._hear(mqtt.read(packet, 5), sock)

    def _hear(self, message: Publish, sock: socket.socket) -> None:
        if message.mid:
            with self._lock:
                sock.sendall(mqtt.puback(message.mid))
        self.results.setdefault(message.topic.split("/")[-2], []).append(json.loads(message.payload))


def retained(port: int, topic: str, patience: float = 5.0) -> Any:
    """What a client that subscribes now is told at once: the retained value, None where there is none or no broker."""
    until = time.monotonic() + patience
    splitter = Splitter()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
        # The second filter's answer comes behind the retained message of the first.
        sock.sendall(mqtt.connect("", _KEEPALIVE) + mqtt.subscribe(topic))
        subscribed = False
        while time.monotonic() < until:
            sock.settimeout(0.3 if subscribed else patience)
            data = sock.recv(65536)
            if not data:
                return None
            for packet in splitter.feed(data):
                subscribed |= packet.kind == SUBACK
                if packet.kind == PUBLISH:
                    return json.loads(mqtt.read(packet, 5).payload)
    return None
