"""The whole daemon as an edge node: jobs, sensors and cameras as a SCADA host sees them, over a real broker."""

from __future__ import annotations

import json
import signal
import time

import pytest
from denoised.config import typed
from denoised.config.tree import Mqtt
from denoised.daemon.bus import Subscription
from denoised.daemon.client import Client
from denoised.daemon.core.sparkplug_metric import Message, Metric, Type
from denoised.daemon.sparkplug_payload import encode
from denoised.tests.conftest import PATIENCE
from denoised.tests.daemon.sparkplug_monitor import Monitor, Packet, packet


class Host:
    """A SCADA host: sees every message of one node, checks each, and remembers what each metric was."""

    def __init__(self, port: int, node: str):
        self.node, self.monitor = node, Monitor()
        self.packets: list[Packet] = []
        self.payloads: list[bytes] = []
        self.client = Client(typed.read({"port": port}, Mqtt), [])
        self.client.bus.subscribe([Subscription(f"spBv1.0/plant/+/{node}/#")])
        self.client.__enter__()

    def look(self, seconds: float = 0.05) -> None:
        for m in self.client.messages(seconds):
            if m.topic.split("/")[2] == "NCMD":
                continue
            p = packet(m.topic, m.payload, m.qos, m.retained)
            if p.kind == "NBIRTH" and p["bdSeq"] != self.monitor.bd_seq:
                self.monitor.connect(encode(Message("NDEATH", None, (Metric("bdSeq", Type.INT64, p["bdSeq"], 1.0),), 1.0)))
            self.monitor.see(p)
            self.packets.append(p)
            self.payloads.append(m.payload)

    def until(self, name: str, wanted=lambda value: value is not None, device: str | None = None) -> Packet:
        """The newest message with a wanted value of this metric."""
        until = time.monotonic() + PATIENCE
        while True:
            found = [p for p in self.packets if p.device == device and name in p and wanted(p[name])]
            if found:
                return found[-1]
            assert time.monotonic() < until, f"{name}: {[p[name] for p in self.packets if name in p]}"
            self.look()

    def write(self, name: str, value: object, kind: Type = Type.STRING) -> None:
        metric = Metric(name, kind, value, time.time())  # type: ignore[arg-type]
        self.client.publish(f"spBv1.0/plant/NCMD/{self.node}", encode(Message("NCMD", None, (metric,), time.time())))


@pytest.fixture
def with_host(make_daemon, broker):
    hosts = []

    def make(**settings):
        daemon = make_daemon(start=False, **settings)
        daemon.settings["sparkplug"] = {"group": "plant", **settings.get("sparkplug", {})}
        daemon.write()
        hosts.append(Host(broker.port, daemon.id))
        daemon.start()
        return daemon, hosts[-1]

    yield make
    for host in hosts:
        host.client.__exit__()


def test_a_job_is_submitted_and_its_end_is_told(with_host, tahu):
    daemon, host = with_host()
    birth = host.until("Properties/Version")
    assert (birth.kind, birth["Models/Active/toy"]) == ("NBIRTH", "toy-model 1.0.0")
    host.write("Jobs/toy/Submit", json.dumps({"id": "scada-1", "params": {"count": 2}}))
    done = host.until("Jobs/Last/Id", lambda v: v == "scada-1")
    assert (done["Jobs/Last/State"], done["Jobs/Last/Kind"], done["Jobs/Last/Model"]) == ("done", "toy", "toy-model")
    assert daemon.result("scada-1")["state"] == "done"
    host.until("Jobs/Done", lambda v: v == 1)
    host.write("Jobs/toy/Submit", json.dumps({"id": "scada-2", "params": {"cuont": 2}}))
    refused = host.until("Jobs/Last/Id", lambda v: v == "scada-2")
    assert (refused["Jobs/Last/State"], refused["Jobs/Last/Error"]) == ("failed", "bad-request")
    assert refused["Jobs/Last/Error Field"] == "params.cuont"
    for ours, theirs in zip(host.packets, tahu(host.payloads)):
        assert [m["name"] for m in theirs["metrics"]] == [m.name for m in ours.metrics]
        assert not [m for m, t in zip(ours.metrics, theirs["metrics"]) if not m.null and t["value"] is None]


def test_a_running_job_is_seen_and_cancelled(with_host):
    _, host = with_host()
    host.until("Properties/Version")
    host.write("Jobs/toy/Submit", json.dumps({"id": "long", "params": {"count": 10000}}))
    host.until("Jobs/Running/Id", lambda v: v == "long")
    host.write("Jobs/Cancel", "long")
    assert host.until("Jobs/Last/Id", lambda v: v == "long")["Jobs/Last/State"] == "cancelled"


def test_sensors_are_a_device_whose_gaps_stand_beside_the_tag(with_host):
    daemon, host = with_host(
        sensors={
            "press": {
                "period": "500ms",
                "max_latency": "400ms",
                "tags": {"oil": {"topic": "plant/oil"}, "water": {"topic": "plant/water"}},
            }
        }
    )
    host.until("Properties/Version")
    host.until("oil", lambda v: True, "sensors-press")
    imputed, until = "imputed/water/value", time.monotonic() + PATIENCE
    while not any(imputed in p and p[imputed] is not None for p in host.packets):
        assert time.monotonic() < until
        daemon.client.publish("plant/oil", 61.5 + time.monotonic() % 1, qos=0)
        host.look(0.1)
    told = host.until(imputed, device="sensors-press")
    metric = next(m for m in told.metrics if m.name == imputed)
    assert metric.properties["Quality"] in ((3, 192), (3, 500))
    assert told["imputed/water/q05"] <= told[imputed] <= told["imputed/water/q95"]
    assert isinstance(host.until("oil", device="sensors-press")["oil"], float)
    assert not [p for p in host.packets if "water" in p and p["water"] is not None]


def test_a_camera_without_a_picture_dies(with_host, tmp_path):
    daemon, host = with_host(cameras={"line1": {"source": str(tmp_path / "nothing")}})
    host.until("Frames", lambda v: True, "camera-line1")
    daemon.submit("toy", {"id": "no-frame", "params": {"camera": "line1"}})
    daemon.result("no-frame")
    until = time.monotonic() + PATIENCE
    while not [p for p in host.packets if p.kind == "DDEATH"]:
        assert time.monotonic() < until
        host.look()


def test_a_stop_is_told_and_the_next_start_has_the_next_bd_seq(with_host):
    daemon, host = with_host()
    assert host.until("bdSeq")["bdSeq"] == 0
    daemon.stop()
    host.look(0.5)
    assert {p["bdSeq"] for p in host.packets if p.kind == "NDEATH"} == {0}
    daemon.start()
    host.until("bdSeq", lambda v: v == 1)
    daemon.kill()
    daemon.start()
    host.until("bdSeq", lambda v: v == 2)


def test_after_a_reload_there_are_other_devices(with_host):
    daemon, host = with_host(cameras={"line1": {"source": "/nowhere"}})
    host.until("Frames", lambda v: True, "camera-line1")
    daemon.settings["cameras"] = {"line2": {"source": "/nowhere"}}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    host.until("Frames", lambda v: True, "camera-line2")
    assert [p.device for p in host.packets if p.kind == "DDEATH"] == ["camera-line1"]


def test_telemetry_says_how_the_connection_is(with_host):
    daemon, _ = with_host(sparkplug={"primary_host": "nobody"})
    told = daemon.wait_for("telemetry", lambda v: v["sparkplug"]["state"] == "waiting")["sparkplug"]
    assert "waiting for the primary host 'nobody'" in told["note"]


def test_without_the_section_there_is_no_node(daemon):
    assert "sparkplug" not in daemon.wait_for("telemetry")
