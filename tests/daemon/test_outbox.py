"""What is sent when, what waits and what is dropped, over a bus that hands out message ids and nothing more.

A real broker is in `test_daemon_bus.py`; here the moment of each acknowledgement is the test's to choose.
"""

from __future__ import annotations

import msgspec
import pytest
from denoised.daemon.bus import Delivered
from denoised.daemon.core.job import Job
from denoised.daemon.outbox import Outbox
from denoised.daemon.spool import Outgoing, Spool


class Line:
    """The part of `Bus` that the outbox uses."""

    def __init__(self):
        self.connected, self.max_packet, self.receive_maximum = True, None, None
        self.sent: list[tuple[str, int]] = []
        self.payloads: list[bytes] = []

    def publish(self, topic, payload, qos=1, **properties):
        if not self.connected:
            return None
        if "+" in topic:
            raise ValueError("Invalid topic.")
        self.payloads.append(payload)
        self.sent.append((topic, qos))
        return len(self.sent)

    @property
    def topics(self):
        return [topic for topic, _ in self.sent]


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "spool.db")
    yield made
    made.close()


@pytest.fixture
def outbox(line, spool):
    made = Outbox(spool, line)
    made.pump(0.0)  # nothing is stored yet
    return made


def finish(spool, name, *topics):
    spool.accept([Job(name, "k", {}, 0, 1, 1.0)], 1.0)
    spool.finish(name, {"state": "done"}, [Outgoing(topic, b"{}", job=name) for topic in topics], 1.0)


def event(topic):
    return Outgoing(topic, b"{}")


def test_never_more_under_way_than_the_window_or_the_broker_takes(outbox, line):
    for n in range(30):
        outbox.say("event", event(f"e{n}"))
    assert line.topics == [f"e{n}" for n in range(10)]
    line.receive_maximum = 2
    for mid in range(1, 10):
        outbox.delivered(Delivered(mid), 1.0)
    outbox.pump(1.0)
    assert line.topics == [f"e{n}" for n in range(11)]


def test_events_wait_for_a_broker_and_the_oldest_are_dropped_and_counted(outbox, line):
    line.connected = False
    for n in range(4172):
        outbox.say("event", event(f"e{n}"))
    assert outbox.dropped == {"event": 76}
    line.connected = True
    outbox.pump(1.0)
    assert line.topics == [f"e{n}" for n in range(76, 86)]


def test_progress_and_telemetry_are_sent_now_or_never(outbox, line):
    outbox.progress(event("p"))
    outbox.telemetry("t", b"{}")
    line.connected = False
    outbox.progress(event("p"))
    outbox.telemetry("t", b"{}")
    assert line.sent == [("p", 1), ("t", 0)]
    assert outbox.dropped == {"progress": 1, "telemetry": 1}


def test_progress_never_overtakes_an_event(outbox, line):
    for n in range(11):
        outbox.say("event", event(f"e{n}"))
    outbox.delivered(Delivered(1), 1.0)
    outbox._queues["event"].clear()
    for n in range(3):
        outbox.say("event", event(f"f{n}"))
    outbox.progress(event("p"))
    assert "p" not in line.topics


def test_events_of_a_job_go_before_its_result(outbox, line, spool):
    line.connected = False
    outbox.say("event", event("running"))
    finish(spool, "a", "result")
    outbox.wake()
    line.connected = True
    outbox.pump(1.0)
    assert line.topics == ["running", "result"]


def test_what_the_broker_has_leaves_the_disk_a_second_later_at_the_latest(outbox, line, spool):
    finish(spool, "a", "result")
    outbox.wake()
    outbox.pump(1.0)
    outbox.delivered(Delivered(1), 1.0)
    outbox.pump(1.0)
    assert (outbox.waiting["result"], len(spool.outgoing(0, 9))) == (0, 1)
    assert outbox.due(1.0) == 2.0
    outbox.pump(2.0)
    assert spool.outgoing(0, 9) == []
    outbox.pump(2.1)
    assert outbox.due(2.1) is None


def test_a_result_that_the_broker_cannot_take_now_is_sent_again_and_nothing_else_is(outbox, line, spool):
    finish(spool, "a", "r1", "r2", "r3")
    outbox.wake()
    outbox.pump(1.0)
    outbox.delivered(Delivered(1), 1.0)
    outbox.delivered(Delivered(2, "Quota exceeded", again=True), 1.0)
    outbox.pump(1.1)
    assert line.topics == ["r1", "r2", "r3"]
    assert outbox.due(1.1) is not None
    outbox.pump(6.1)
    assert line.topics == ["r1", "r2", "r3", "r2"], "r3 is still under way"
    assert outbox.undeliverable == {}


def test_a_result_that_the_broker_will_not_have_is_given_up_and_counted(outbox, spool):
    finish(spool, "a", "r1")
    outbox.wake()
    outbox.pump(1.0)
    outbox.delivered(Delivered(1, "Not authorized"), 1.0)
    assert outbox.undeliverable == {"refused": 1}
    assert outbox.waiting["result"] == 0


def test_a_disk_that_takes_no_deletion_ends_nothing_and_it_is_tried_again(outbox, spool):
    finish(spool, "a", "r1")
    outbox.wake()
    outbox.pump(1.0)
    outbox.delivered(Delivered(1), 1.0)
    outbox.pump(1.0)
    spool._db.execute("PRAGMA query_only = 1")  # SQLite then refuses each write as it does on a read-only disk
    outbox.pump(2.0)
    assert outbox.due(2.0) == 7.0
    spool._db.execute("PRAGMA query_only = 0")
    outbox.pump(7.0)
    assert spool.outgoing(0, 9) == []


def test_what_a_restart_finds_in_the_spool_is_sent_once(line, spool):
    finish(spool, "a", "r1", "r2")
    outbox = Outbox(spool, line)
    outbox.pump(1.0)
    outbox.pump(1.0)
    assert line.topics == ["r1", "r2"]


def test_an_asker_is_deaf_from_the_first_message_that_nobody_got_until_one_is_read(outbox):
    outbox.say("event", event("answers"), "job")
    outbox.say("event", event("answers"), "job")
    outbox.delivered(Delivered(1, nobody=True), 5.0)
    outbox.delivered(Delivered(2, nobody=True), 9.0)
    assert outbox.deaf == {"job": 5.0}
    outbox.say("event", event("answers"), "job")
    outbox.delivered(Delivered(3), 10.0)
    assert outbox.deaf == {}


def test_an_asker_whose_job_is_over_is_forgotten(outbox):
    outbox.say("event", event("answers"), "job")
    outbox.forget("job")
    outbox.delivered(Delivered(1, nobody=True), 5.0)
    assert outbox.deaf == {}


def test_results_are_sent_however_fast_samples_come(outbox, line, spool):
    finish(spool, "a", "r1", "r2", "r3")
    outbox.wake()
    for n in range(40):
        outbox.say("sample", event(f"s{n}"))
    for round_ in range(4):
        outbox.pump(1.0)
        for mid in range(len(line.sent) + 1):
            outbox.delivered(Delivered(mid), 1.0)
        for n in range(20):
            outbox.say("sample", event(f"more-{round_}-{n}"))
    assert {"r1", "r2", "r3"} <= set(line.topics)


def test_a_message_that_no_broker_can_be_sent_is_given_up_and_counted(outbox, line, spool):
    finish(spool, "a", "no/+/topic", "r2")
    outbox.wake()
    outbox.pump(1.0)
    assert line.topics == ["r2"]
    assert outbox.undeliverable == {"invalid": 1}


def test_a_result_that_is_too_large_for_the_broker_arrives_without_its_output(outbox, line, spool):
    result = {"id": "a", "state": "done", "output": {"values": [1.5] * 500}}
    spool.accept([Job("a", "k", {}, 0, 1, 1.0)], 1.0)
    spool.finish("a", result, [Outgoing("r", msgspec.json.encode(result), job="a")], 1.0)
    line.max_packet = 1000
    outbox.wake()
    outbox.pump(1.0)
    sent = msgspec.json.decode(line.payloads[0])
    assert (sent["id"], sent["state"], sent["output"]) == ("a", "done", {})
    assert "takes no message of" in sent["reason"]


def test_no_more_is_asked_for_while_answers_pile_up(outbox, line):
    assert outbox.roomy
    line.connected = False
    for n in range(1024):
        outbox.say("event", event(f"e{n}"))
    assert not outbox.roomy
