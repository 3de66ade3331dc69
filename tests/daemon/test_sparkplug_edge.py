"""The edge node on a real broker, held to what the Sparkplug TCK checks of one: its tests of the edge profile, re-stated.

A proxy between node and broker shows each packet, as the TCK sees them from inside the broker; the monitor checks them all.
Templates, data sets and writable devices are not checked, for the node has none.
"""

from __future__ import annotations

import json
import sys
import time

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.core.gaps import Sample
from denoised.daemon.core.sparkplug_metric import Metric, Type
from denoised.daemon.sparkplug import Sparkplug
from denoised.demo.broker import Broker
from denoised.tests.chaos.proxy import Proxy
from denoised.tests.daemon.sparkplug_monitor import INT64, packet
from denoised.tests.daemon.sparkplug_plant import STATUS, Plant


@pytest.fixture
def make_plant(tmp_path, broker):
    made = []

    def make(*others: Broker, **settings) -> Plant:
        made.append(Plant(tmp_path, [broker, *others], **settings))
        return made[-1]

    yield make
    for plant in made:
        plant.close()


@pytest.fixture
def second_broker(tmp_path, broker):
    folder = tmp_path / "second"
    folder.mkdir()
    with Broker("mosquitto", folder) as running:
        yield running


def rebirth() -> Metric:
    return Metric("Node Control/Rebirth", Type.BOOLEAN, True, time.time())


# ---- session establishment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_session_is_clean_has_its_death_as_will_subscribes_and_is_born_in_this_order(make_plant, protocol):
    plant = make_plant(protocol=protocol)
    plant.born()
    (connect,) = plant.connects
    assert connect.clean  # principles-persistence-clean-session-50, -311
    if protocol == "5":
        assert b"\x11\0\0\0\0" in connect.properties  # Session Expiry Interval 0
    assert connect.has_will and connect.will_topic == f"spBv1.0/g/NDEATH/{plant.name}"
    assert (connect.will_qos, connect.will_retain) == (1, False)  # message-flow-edge-node-birth-publish-will-message-*
    assert plant.filters == [(f"spBv1.0/g/NCMD/{plant.name}", 1)]  # message-flow-edge-node-ncmd-subscribe
    assert plant.order[:5] == ["CONNECT", "SUBSCRIBE", "NBIRTH", "DBIRTH", "DBIRTH"]
    birth = plant.packets[0]
    assert birth["bdSeq"] == 0
    assert abs(birth.at_ms / 1000 - time.time()) < 60  # payloads-timestamp-in-UTC
    assert {p.device for p in plant.packets[1:3]} == {"camera-line1", "sensors-press"}
    assert birth["Models/Active/toy"] == "toy-model 1.0.0"


def test_bd_seq_goes_on_over_restarts(make_plant):
    plant = make_plant()
    plant.born()
    plant.node.stop()
    plant.start()
    plant.born(2)
    assert [packet("spBv1.0/g/NDEATH/n", c.will)["bdSeq"] for c in plant.connects] == [0, 1]


def test_attempts_without_a_connection_use_up_no_bd_seq(make_plant):
    plant = make_plant()
    plant.born()
    plant.proxies[0].close()
    plant.until(lambda: plant.node.counts()["note"].startswith("no connection: no broker"))
    plant.for_a_while(1.0)
    plant.proxies[0] = Proxy(plant.hosts[0].bus.port, plant._watch, plant.proxies[0].port)
    plant.born(2)
    assert [packet("spBv1.0/g/NDEATH/n", c.will)["bdSeq"] for c in plant.connects] == [0, 1]


# ---- session termination --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_who_goes_on_purpose_says_its_death_before_the_disconnect(make_plant, protocol):
    plant = make_plant(protocol=protocol)
    plant.born()
    plant.node.stop()
    plant.until(lambda: plant.order[-2:] == ["NDEATH", "DISCONNECT"])
    assert plant.disconnects == [b"\x04" if protocol == "5" else b""]  # payloads-ndeath-will-message-publisher-disconnect-*
    plant.until(lambda: [p for _, p in plant.seen if p.kind == "NDEATH"])
    assert {p["bdSeq"] for _, p in plant.seen if p.kind == "NDEATH"} == {0}


def test_a_broken_connection_is_told_to_hosts_by_the_broker(make_plant):
    plant = make_plant()
    plant.born()
    plant.proxies[0].cut()
    plant.until(lambda: [p for _, p in plant.seen if p.kind == "NDEATH"])
    (death,) = [p for _, p in plant.seen if p.kind == "NDEATH"]
    assert (death["bdSeq"], death.qos, death.retained) == (0, 1, False)
    plant.born(2)
    assert plant.packets[-1].seq == 2


def test_a_camera_that_fails_is_a_device_that_died_until_it_gives_a_frame(make_plant):
    plant = make_plant()
    plant.born()
    plant.node.frame("line1", None)
    plant.until(lambda: plant.value("Frames") == 1)
    plant.node.frame("line1", "no such device")
    plant.until(lambda: plant.kinds()[-1] == "DDEATH")
    assert plant.packets[-2]["Last Error"] == "no such device"
    plant.node.frame("line1", None)
    plant.until(lambda: plant.kinds()[-1] == "DBIRTH")
    assert (plant.value("Frames"), plant.value("Last Error")) == (2, "no such device")


# ---- data -----------------------------------------------------------------------------------------------------------------


def test_telemetry_becomes_node_data_where_it_changed(make_plant):
    plant = make_plant()
    plant.born()
    message = {"jobs": {"done": 3}, "queue": {"jobs": 1}, "governor": {"temp_c": 51.5}, "clock": "unknown"}
    plant.node.telemetry(message)
    plant.until(lambda: plant.value("Jobs/Done") == 3)
    data = plant.packets[-1]
    told = data.kind, data["Governor/Temperature"], data["Jobs/Waiting"], data["Properties/Clock"]
    assert told == ("NDATA", 51.5, 1, "unknown")
    assert "Governor/Power" not in data  # null as in the birth
    plant.node.telemetry(message)
    plant.for_a_while(0.5)
    assert plant.packets[-1] is data
    plant.node.telemetry({**message, "governor": {"power_w": 6.5, "temp_c": 52.0}})
    plant.until(lambda: plant.value("Governor/Power") == 6.5)


def test_an_imputed_value_stands_beside_its_tag_never_in_it(make_plant):
    plant = make_plant()
    plant.born()
    now = float(round(time.time()))

    def told(sample: Sample) -> dict[str, tuple]:
        before = len(plant.packets)
        plant.node.sample("press", sample)
        plant.until(lambda: len(plant.packets) > before)
        metrics = plant.packets[-1].metrics
        return {m.name: (m.value, m.properties["Quality"][1], m.historical) for m in metrics if m.name}

    assert told(Sample("oil", now - 3, 61.5, "good")) == {"oil": (61.5, 192, False)}
    gap = told(Sample("oil", now - 2, 61.7, "imputed", 61.0, 62.0))
    assert gap == {
        "oil": (None, 500, False),
        "imputed/oil/value": (61.7, 192, False),
        "imputed/oil/q05": (61.0, 192, False),
        "imputed/oil/q95": (62.0, 192, False),
    }
    late = told(Sample("oil", now - 2.5, 61.6, "good"))
    assert late["oil"] == (61.6, 192, True)
    assert told(Sample("oil", now - 1, None, "bad"))["oil"] == (None, 0, False)
    back = told(Sample("oil", now, 61.9, "good"))
    assert (back["oil"], back["imputed/oil/value"]) == ((61.9, 192, False), (None, 500, False))


def test_the_last_job_and_the_last_refusal_are_told(make_plant):
    plant = make_plant()
    plant.born()
    plant.node.final({"id": "a", "kind": "toy", "state": "done", "run_ms": 120, "model": {"name": "m"}})
    plant.until(lambda: plant.value("Jobs/Last/Id") == "a")
    error = {"code": "bad-request", "message": "unknown field", "field": "params.cuont"}
    plant.node.final({"id": "b", "kind": "toy", "state": "failed", "error": error})
    plant.until(lambda: plant.value("Jobs/Last/Id") == "b")
    assert plant.packets[-1]["Jobs/Last/Error Field"] == "params.cuont"
    assert plant.packets[-1]["Jobs/Last/Run Time"] is None


def test_with_aliases_all_data_is_read_by_number(make_plant):
    plant = make_plant(aliases=True)
    plant.born()
    plant.node.sample("press", Sample("oil", time.time(), 61.5, "good"))
    plant.until(lambda: plant.kinds()[-1] == "DDATA")
    assert [m.name for m in plant.packets[-1].metrics] == [None]


def test_the_largest_sensor_group_has_a_birth_below_128_kib(make_plant):
    plant = make_plant()
    tags = {f"{i:03}" + "x" * 61: {"topic": "t", "low": 0, "high": 1} for i in range(256)}
    config = typed.read({"sparkplug": {"group": "g"}, "sensors": {"big": {"tags": tags}}}, Config)
    plant.node.configure(config, STATUS)
    plant.until(lambda: [p for p in plant.packets if p.device == "sensors-big"])
    birth, payload = next((p, b) for p, b in zip(plant.packets, plant.payloads) if p.device == "sensors-big")
    assert (birth.kind, len(birth.metrics)) == ("DBIRTH", 4 * 256)
    assert len(payload) < 128 * 1024


def test_eclipse_tahu_reads_a_whole_session_as_it_was_meant(make_plant, tahu):
    plant = make_plant()
    plant.born()
    plant.node.telemetry({"jobs": {"done": 3}, "governor": {"temp_c": 51.5}, "clock": "unknown"})
    plant.node.sample("press", Sample("oil", time.time(), 61.7, "imputed", 61.0, 62.0))
    plant.until(lambda: {"NDATA", "DDATA"} <= {*plant.kinds()})
    plant.node.frame("line1", "no such device")
    plant.node.stop()
    plant.until(lambda: plant.kinds()[-1] == "NDEATH")
    read = tahu(plant.payloads)
    assert len(read) == len(plant.packets) > 5
    for ours, theirs in zip(plant.packets, read):
        if ours.kind != "NDEATH":  # where it shows a seq that is not there
            assert (str(ours.seq), str(ours.at_ms)) == (theirs["seq"], theirs["timestamp"])
        told = [(m.name, m.value if m.type != INT64 or m.null else str(m.value)) for m in ours.metrics]
        assert [(m["name"], m["value"]) for m in theirs["metrics"]] == told


# ---- commands -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
def test_a_rebirth_says_everything_again_with_the_same_bd_seq_and_a_new_connection_with_the_next(make_plant, qos):
    plant = make_plant()
    plant.born()
    plant.command(rebirth(), qos=qos)
    plant.born(2)
    assert [p["bdSeq"] for p in plant.packets if p.kind == "NBIRTH"] == [0, 0]
    assert "NDEATH" not in plant.kinds()
    plant.proxies[0].cut()
    plant.born(3)
    assert [p["bdSeq"] for p in plant.packets if p.kind == "NBIRTH"] == [0, 0, 1]


def test_hosts_that_all_ask_for_a_rebirth_get_one_and_one_for_those_who_came_later(make_plant):
    plant = make_plant()
    plant.born()
    for _ in range(30):
        plant.command(rebirth())
    plant.born(2)
    plant.for_a_while(2.5)
    assert plant.kinds().count("NBIRTH") <= 3


def test_a_submit_command_becomes_a_request_and_is_confirmed(make_plant):
    plant = make_plant()
    plant.born()
    text = json.dumps({"id": "s1", "params": {"count": 2}})
    at = time.time()
    plant.command(Metric("Jobs/toy/Submit", Type.STRING, text, at), Metric("Jobs/Cancel", Type.STRING, "s0", at))
    plant.until(lambda: plant.value("Jobs/toy/Submit") == text)
    assert [(r.topic, r.payload, r.qos, r.retained) for r in plant.requests] == [
        ("denoised/gw/jobs/toy/submit", text.encode(), 0, False),
        ("denoised/gw/jobs/s0/cancel", b"", 0, False),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "value", "words"),
    [
        ("Models/Active/toy", Type.STRING, "other", "'Models/Active/toy' only reports"),
        ("Node Control/Reboot", Type.BOOLEAN, True, "no metric 'Node Control/Reboot'"),
        ("Jobs/toy/Submit", Type.INT64, 7, "expected text, found 7"),
        ("Jobs/toy/Submit", Type.STRING, "x" * 20000, "at most 16384"),
        ("Jobs/Cancel", Type.STRING, "a/b", "expected a job id"),
    ],
)
def test_a_command_that_cannot_be_is_refused_in_words_that_hosts_can_read(make_plant, name, kind, value, words):
    plant = make_plant()
    plant.born()
    plant.command(Metric(name, kind, value, time.time()))
    plant.until(lambda: plant.value("Commands/Refused") == 1)
    assert words in plant.value("Commands/Last Refusal")
    assert plant.requests == []


def test_bytes_that_are_no_command_are_refused_and_the_session_goes_on(make_plant):
    plant = make_plant()
    plant.born()
    for junk in (b"", b"\xff" * 40, b"\x12\x03\x0a\x01\xff", b"\0" * 100_000):
        plant.hosts[0].publish(f"spBv1.0/g/NCMD/{plant.name}", junk)
    plant.until(lambda: plant.value("Commands/Refused") == 3)
    assert "100000 bytes, at most 65536" in plant.value("Commands/Last Refusal")
    assert len(plant.connects) == 1


def test_a_retained_command_is_not_obeyed(make_plant):
    plant = make_plant(protocol="3.1.1")
    plant.born()
    plant.command(Metric("Jobs/toy/Submit", Type.STRING, "{}", time.time()), retain=True)
    plant.until(lambda: len(plant.requests) == 1)  # who was there when it was sent cannot see that it is retained
    plant.proxies[0].cut()
    plant.born(2)
    plant.until(lambda: plant.value("Commands/Refused") == 1)
    assert len(plant.requests) == 1
    plant.hosts[0].publish(f"spBv1.0/g/NCMD/{plant.name}", b"", retain=True)


# ---- the primary host -----------------------------------------------------------------------------------------------------


def test_the_primary_host_decides_when_the_node_is_born_and_when_it_goes(make_plant):
    """The course of the TCK's PrimaryHostTest."""
    host = f"scada-{time.monotonic_ns()}"
    plant = make_plant(primary_host=host)
    plant.until(lambda: plant.node.counts()["state"] == "waiting")
    assert (f"spBv1.0/STATE/{host}", 1) in plant.filters
    plant.state(f"{host}-wrong", True, 1000)
    plant.state(host, False, 1000)
    plant.node.sample("press", Sample("oil", time.time() - 5, 1.0, "good"))
    plant.node.sample("press", Sample("oil", time.time() - 4, 2.0, "good"))
    plant.for_a_while(1.0)
    assert plant.packets == []  # message-flow-edge-node-birth-publish-phid-wait, -id, -online
    plant.state(host, True, 2000)
    plant.born()
    plant.until(lambda: plant.kinds()[-1] == "DDATA")
    assert [(m.value, m.historical) for m in plant.packets[-1].metrics] == [(1.0, True)]
    plant.state(host, False, 1999)  # operational-behavior-edge-node-termination-host-offline-timestamp
    plant.for_a_while(1.0)
    assert "NDEATH" not in plant.kinds()
    plant.state(host, False, 2000)
    plant.until(lambda: "DISCONNECT" in plant.order)
    assert plant.order[plant.order.index("DISCONNECT") - 1] == "NDEATH"  # message-flow-edge-node-birth-publish-phid-offline
    plant.until(lambda: len(plant.connects) == 2)  # operational-behavior-edge-node-termination-host-offline-reconnect
    plant.node.sample("press", Sample("oil", time.time() - 2, 3.0, "good"))
    plant.node.sample("press", Sample("oil", time.time() - 1, 4.0, "good"))
    plant.state(host, True, 1500)
    plant.for_a_while(1.0)
    assert plant.kinds().count("NBIRTH") == 1  # message-flow-edge-node-birth-publish-phid-wait-timestamp
    plant.state(host, True, 3000)
    plant.born(2)
    plant.until(lambda: plant.kinds()[-1] == "DDATA")
    assert [(m.value, m.historical) for m in plant.packets[-1].metrics] == [(3.0, True)]


@pytest.mark.parametrize("junk", [b"ONLINE", b"", b'{"online": 1, "timestamp": 5}', b'{"online": true}', b"\xff", b" " * 2000])
def test_a_state_that_is_none_of_sparkplug_3_changes_nothing(make_plant, junk):
    host = f"scada-{time.monotonic_ns()}"
    plant = make_plant(primary_host=host)
    plant.until(lambda: plant.node.counts()["state"] == "waiting")
    plant.hosts[0].publish(f"spBv1.0/STATE/{host}", junk)
    plant.for_a_while(0.3)
    assert plant.packets == []
    plant.state(host, True, 1)
    plant.born()


def test_with_two_brokers_the_node_follows_the_primary_host_and_is_never_at_both(make_plant, second_broker):
    """The course of the TCK's MultipleBrokerTest."""
    host = f"scada-{time.monotonic_ns()}"
    plant = make_plant(second_broker, primary_host=host)
    now = int(time.time() * 1000)

    def where(count: int) -> list[int]:
        plant.until(lambda: len([1 for _, p in plant.seen if p.kind == "NBIRTH"]) >= count)
        return [at for at, p in plant.seen if p.kind == "NBIRTH"]

    plant.state(host, True, now, at=0)
    assert where(1) == [0]
    plant.state(host, True, now, at=1)
    plant.for_a_while(1.0)
    plant.state(host, False, now, at=0)
    assert where(2) == [0, 1]
    plant.state(host, True, now + 5, at=0)
    plant.for_a_while(1.0)
    plant.state(host, False, now, at=1)
    assert where(3) == [0, 1, 0]
    opened = [o for o in plant.order if o in ("CONNECT", "DISCONNECT")]
    assert opened == ["CONNECT", "DISCONNECT", "CONNECT", "DISCONNECT", "CONNECT"]


def test_a_broker_that_is_away_is_left_for_the_next(make_plant, second_broker):
    plant = make_plant(second_broker)
    plant.until(lambda: [at for at, p in plant.seen if p.kind == "NBIRTH"] == [0])
    plant.proxies[0].close()
    plant.until(lambda: [at for at, p in plant.seen if p.kind == "NBIRTH"] == [0, 1])


# ---- what is not there ----------------------------------------------------------------------------------------------------


def test_without_protobuf_the_daemon_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "denoised.daemon.sparkplug_payload", None)
    monkeypatch.delattr("denoised.daemon.sparkplug_payload")
    config = typed.read({"state_dir": str(tmp_path), "sparkplug": {"group": "g"}}, Config)
    with pytest.raises(OSError, match=r"denoised\[sparkplug\]"):
        Sparkplug(config, [], time.time)


@pytest.mark.parametrize("text", ["", "x", "300"])
def test_a_damaged_bd_seq_file_is_no_obstacle(make_plant, tmp_path, text):
    (tmp_path / "sparkplug-bdseq").write_text(text)
    plant = make_plant()
    plant.born()
    assert 0 <= plant.packets[0]["bdSeq"] <= 255
