"""An edge node in the test's own process on a real broker, with a proxy between that shows each packet to the monitor.

So the tests see what the Sparkplug TCK sees, which sits inside the broker.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable

from denoised.config import typed
from denoised.config.tree import Config, Mqtt
from denoised.daemon.bus import Subscription
from denoised.daemon.client import Client
from denoised.daemon.core.sparkplug_metric import Message, Metric
from denoised.daemon.sparkplug import Sparkplug
from denoised.daemon.sparkplug_payload import encode
from denoised.demo.broker import Broker
from denoised.tests.chaos.mqtt import CONNECT, PUBLISH, SUBSCRIBE, read
from denoised.tests.chaos.proxy import UP, Proxy
from denoised.tests.conftest import PATIENCE
from denoised.tests.daemon.sparkplug_monitor import Monitor, Packet, packet

DISCONNECT = 14
STATUS = {
    "version": "1",
    "started": "now",
    "board": "bench",
    "models": [{"kind": "toy", "name": "toy-model", "version": "1.0.0"}, {"kind": "toy", "name": "other", "version": "2"}],
}
DEVICES = {"cameras": {"line1": {"source": "/dev/video0"}}, "sensors": {"press": {"tags": {"oil": {"topic": "oil"}}}}}


class Connect:
    """A CONNECT as MQTT writes it down (5.0 and 3.1.1, section 3.1)."""

    def __init__(self, body: bytes):
        self.version, flags = body[6], body[7]
        self.clean, self.has_will = bool(flags & 2), bool(flags & 4)
        self.will_qos, self.will_retain = flags >> 3 & 3, bool(flags & 32)
        at = 10
        self.properties = b""
        if self.version == 5:
            self.properties = body[at + 1 : at + 1 + body[at]]
            at += 1 + body[at]
        self.client_id, at = self._text(body, at)
        if self.version == 5:
            at += 1 + body[at]
        topic, at = self._text(body, at)
        self.will_topic = topic.decode()
        self.will, at = self._text(body, at)

    @staticmethod
    def _text(body: bytes, at: int) -> tuple[bytes, int]:
        (size,) = struct.unpack_from(">H", body, at)
        return body[at + 2 : at + 2 + size], at + 2 + size


class Plant:
    """An edge node in this process, a proxy before each broker, and a host's eyes on everything that the node sends."""

    def __init__(self, folder, brokers: list[Broker], protocol="5", **settings):
        self.name = f"n-{time.monotonic_ns()}"
        self.proxies = [Proxy(b.port, self._watch) for b in brokers]
        self.raw: list = []
        self.monitor = Monitor()
        self.connects: list[Connect] = []
        self.packets: list[Packet] = []
        self.payloads: list[bytes] = []
        self.disconnects: list[bytes] = []
        self.filters: list[tuple[str, int]] = []
        self.order: list[str] = []
        self.requests: list = []
        addresses = [{"host": "127.0.0.1", "port": p.port} for p in self.proxies]
        plain = {
            "gateway": {"id": "gw"},
            "state_dir": str(folder),
            "mqtt": {"port": self.proxies[0].port, "protocol": protocol},
            "sparkplug": {"group": "g", "node": self.name, "brokers": addresses if len(brokers) > 1 else None, **settings},
            **DEVICES,
        }
        self.config = typed.read(plain, Config)
        self.hosts = [Client(typed.read({"port": b.port}, Mqtt), []) for b in brokers]
        for host in self.hosts:
            host.bus.subscribe([Subscription(f"spBv1.0/g/+/{self.name}/#")])
            host.__enter__()
        self.seen: list[tuple[int, Packet]] = []
        self.start()

    def start(self) -> None:
        self.node = Sparkplug(self.config, ["toy"], time.time)
        self.node.configure(self.config, STATUS)
        self.node.start()

    def close(self) -> None:
        self.node.stop()
        for i, host in enumerate(self.hosts):
            if self.config.sparkplug and self.config.sparkplug.primary_host:
                host.bus.publish(f"spBv1.0/STATE/{self.config.sparkplug.primary_host}", b"", retain=True)
            host.__exit__()
            self.proxies[i].close()

    def _watch(self, connection, way, control) -> None:
        if way == UP:
            self.raw.append((connection, control))

    def turn(self, seconds: float = 0.05) -> None:
        watched, due = self.node.watched(), self.node.due
        wait = seconds if due is None else max(0.0, min(seconds, due - time.monotonic()))
        select.select([watched[0]] if watched else [], [], [], wait)
        self.requests += self.node.turn()
        while self.raw:
            self._take(*self.raw.pop(0))
        for number, host in enumerate(self.hosts):
            for m in host.messages(0.002):
                if m.topic.split("/")[2] != "NCMD":
                    self.seen.append((number, packet(m.topic, m.payload, m.qos, m.retained)))

    def _take(self, connection, control) -> None:
        if control.kind == CONNECT:
            self.connects.append(Connect(control.body))
            self.monitor.connect(self.connects[-1].will)
            self.order.append("CONNECT")
        elif control.kind == SUBSCRIBE:
            at = 2 + (1 + control.body[2] if connection.version == 5 else 0)
            while at < len(control.body):
                name, at = Connect._text(control.body, at)
                self.filters.append((name.decode(), control.body[at] & 3))
                at += 1
            self.order.append("SUBSCRIBE")
        elif control.kind == PUBLISH:
            published = read(control, connection.version)
            self.packets.append(packet(published.topic, published.payload, control.flags >> 1 & 3, published.retain))
            self.payloads.append(published.payload)
            self.monitor.see(self.packets[-1])
            self.order.append(self.packets[-1].kind)
        elif control.kind == DISCONNECT:
            self.disconnects.append(control.body)
            self.order.append("DISCONNECT")

    def until(self, wanted: Callable[[], object], why: str = "") -> None:
        until = time.monotonic() + PATIENCE
        while not wanted():
            assert time.monotonic() < until, f"{why}: {self.order} {self.node.counts()}"
            self.turn()

    def for_a_while(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.turn(left)

    def kinds(self) -> list[str]:
        return [p.kind for p in self.packets]

    def born(self, times: int = 1) -> None:
        """NBIRTH and both DBIRTHs have been seen so often."""
        self.until(lambda: self.kinds().count("DBIRTH") >= 2 * times and self.kinds().count("NBIRTH") >= times, "not born")

    def state(self, host: str, online: bool, timestamp: int, at: int = 0) -> None:
        self.hosts[at].publish(f"spBv1.0/STATE/{host}", {"online": online, "timestamp": timestamp}, retain=True)

    def command(self, *metrics: Metric, at: int = 0, **properties) -> None:
        payload = encode(Message("NCMD", None, metrics, time.time()))
        self.hosts[at].publish(f"spBv1.0/g/NCMD/{self.name}", payload, **properties)

    def value(self, name: str):
        """As the node last told it."""
        return next((p[name] for p in reversed(self.packets) if name in p), None)
