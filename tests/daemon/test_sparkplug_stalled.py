"""A broker that stops reading: what the node would send is bounded, and what it says afterwards is the newest."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.core.gaps import Sample
from denoised.daemon.sparkplug import Sparkplug
from denoised.tests.chaos.mqtt import PUBLISH, Splitter, read
from denoised.tests.conftest import PATIENCE
from denoised.tests.daemon.sparkplug_monitor import Packet, packet
from denoised.tests.daemon.sparkplug_plant import DEVICES, STATUS


class Deaf:
    """A broker that takes a client and a subscription, and then reads nothing until `read` is called."""

    def __init__(self):
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port = self._server.getsockname()[1]
        self._splitter = Splitter()

    def take(self) -> None:
        self._client = self._server.accept()[0]
        self._client.recv(4096)
        self._client.sendall(bytes([0x20, 2, 0, 0]))

    def subscribed(self) -> None:
        """Answers the SUBSCRIBE that has come by now."""
        (subscribe,) = self._splitter.feed(self._client.recv(4096))
        self._client.sendall(bytes([0x90, 3]) + subscribe.body[:2] + b"\1")

    def read(self) -> list[Packet]:
        """What the node has sent; goes on reading until nothing comes any more."""
        self._client.settimeout(0.2)
        out = []
        with contextlib.suppress(TimeoutError):
            while data := self._client.recv(1 << 20):
                out += [read(p, 4) for p in self._splitter.feed(data) if p.kind == PUBLISH]
        return [packet(p.topic, p.payload) for p in out]

    def close(self) -> None:
        self._client.close()
        self._server.close()


def test_a_broker_that_reads_nothing_is_not_heaped_upon_and_learns_the_newest_when_it_reads_again(tmp_path):
    broker = Deaf()
    plain = {
        "state_dir": str(tmp_path),
        "mqtt": {"port": broker.port, "protocol": "3.1.1"},
        "sparkplug": {"group": "g", "node": "n", "keep": 200},
        **DEVICES,
    }
    node = Sparkplug(typed.read(plain, Config), ["toy"], time.time)
    node.configure(typed.read(plain, Config), STATUS)
    node.start()
    waiter = threading.Thread(target=broker.take)
    waiter.start()
    while waiter.is_alive():
        node.turn()
    until = time.monotonic() + PATIENCE
    while not node._bus.connected and time.monotonic() < until:
        node.turn()
    broker.subscribed()
    watched = node.watched()
    assert watched is not None
    watched[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not node._stalled and time.monotonic() < until:
        node.sample("press", Sample("oil", time.time(), time.monotonic(), "good"))
        node.turn()
    assert node._stalled
    said, fed_until = node._edge._seq, time.monotonic() + 1.5
    for i in range(2000):
        node.sample("press", Sample("oil", time.time(), float(i), "good"))
        node.turn()
    while time.monotonic() < fed_until:
        node.turn()
    assert node._edge._seq == said
    assert node.counts()["waiting"] <= 200 < node.counts()["dropped"]
    seen: list[Packet] = []
    while not any(p.kind == "DBIRTH" and "oil" in p and p["oil"] == 1999.0 for p in seen) and time.monotonic() < until:
        seen += broker.read()
        node.turn()
    assert [p["oil"] for p in seen if p.kind == "DBIRTH" and "oil" in p][-1] == 1999.0
    node.stop()
    broker.close()
