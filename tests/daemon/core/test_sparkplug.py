"""The edge node's state machine: by example where a rule has a name, by random order of events where it must always hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from denoised.daemon.core.sparkplug import REBIRTH, Edge
from denoised.daemon.core.sparkplug_metric import GOOD, Message, Metric, Received, Type, Value
from denoised.daemon.sparkplug_payload import encode
from denoised.tests.daemon.sparkplug_monitor import Monitor, packet
from hypothesis import given, settings
from hypothesis import strategies as st

WALL = 1_800_000_000.0
NODE = [Metric("Jobs/Done", Type.INT64, stored=True), Metric("Temp", Type.DOUBLE), Metric("Submit", Type.STRING, writable=True)]
PRESS = [Metric("oil", Type.DOUBLE, quality=GOOD, stored=True), Metric("note", Type.STRING)]


class Rig:
    """An edge node, a clock, and a host that checks every message."""

    def __init__(self, **options):
        self.edge = Edge(options.pop("primary_host", False), **options)
        self.monitor, self.wall, self.sent = Monitor(), WALL, []
        self.edge.declare(None, NODE)
        self.edge.declare("press", PRESS)

    def connect(self):
        self.monitor.connect(encode(self.edge.death(self.wall)))
        self.edge.connected(self.wall)

    def turn(self, seconds: float = 0.2) -> list[Message]:
        self.wall += seconds
        said = self.edge.turn(self.wall, self.wall)
        for m in said:
            topic = "/".join(["spBv1.0", "g", m.kind, "n", *([m.device] if m.device is not None else [])])
            self.monitor.see(packet(topic, encode(m)))
        if said and said[0].kind == "NBIRTH":  # payloads-dbirth-order
            there = [d for d, thing in self.edge._things.items() if d is not None and thing.there]
            assert [(m.kind, m.device) for m in said[1:]] == [("DBIRTH", d) for d in there]
        self.sent += said
        if self.edge.leaving:
            self.edge.lost(True)
        return said

    def kinds(self, seconds: float = 0.2) -> list[str]:
        return [m.kind for m in self.turn(seconds)]

    def tell(self, device, name, value, ago: float = 0.0):
        self.edge.update(device, name, value, self.wall - ago, self.wall, GOOD if name == "oil" else None)


def alive(**options) -> Rig:
    rig = Rig(**options)
    rig.connect()
    assert rig.kinds() == ["NBIRTH", "DBIRTH"]
    return rig


# ---- births and numbers ---------------------------------------------------------------------------------------------------


def test_nothing_is_said_before_the_broker_took_us():
    rig = Rig()
    rig.tell(None, "Temp", 41.0)
    assert rig.turn() == []


def test_a_change_is_told_once_and_no_change_not_at_all():
    rig = alive()
    rig.tell(None, "Temp", 41.0)
    assert rig.kinds() == ["NDATA"]
    rig.tell(None, "Temp", 41.0)
    assert rig.kinds() == []
    rig.tell(None, "Temp", 42.0)
    rig.tell(None, "Temp", 43.0)
    (message,) = rig.turn()
    assert [m.value for m in message.metrics] == [43.0]


def test_what_goes_there_and_back_between_two_messages_is_no_change():
    rig = alive()
    rig.tell(None, "Temp", 41.0)
    rig.turn()
    rig.tell(None, "Temp", 42.0)
    rig.tell(None, "Temp", 41.0)
    assert rig.turn() == []


def test_metrics_of_one_message_are_in_the_order_of_their_time():
    rig = alive()
    rig.tell("press", "oil", 1.0)
    rig.tell("press", "note", "earlier", ago=0.1)
    (message,) = rig.turn()
    assert [m.name for m in message.metrics] == ["note", "oil"]


def test_each_value_of_a_stored_metric_is_told_not_the_newest_alone():
    rig = alive()
    for value in (1.0, 2.0, 3.0):
        rig.tell("press", "oil", value)
    (message,) = rig.turn()
    assert [(m.value, m.historical) for m in message.metrics] == [(1.0, False), (2.0, False), (3.0, False)]


def test_seq_counts_node_and_devices_together_and_goes_from_255_to_0():
    rig = alive()
    for i in range(300):
        rig.tell("press" if i % 2 else None, "oil" if i % 2 else "Temp", float(i))
        rig.turn()
    assert [m.seq for m in rig.sent] == [i % 256 for i in range(302)]


def test_bd_seq_is_that_of_the_will_goes_up_with_each_connect_packet_and_from_255_to_0():
    rig = Rig(last_bd_seq=253)
    seen = []
    for _ in range(4):
        rig.connect()
        birth = rig.turn()[0]
        seen.append(next(m.value for m in birth.metrics if m.name == "bdSeq"))
        rig.edge.lost(opened=True)
    assert seen == [254, 255, 0, 1]


def test_a_connection_that_never_came_about_uses_up_no_bd_seq():
    rig = Rig()
    rig.edge.lost(opened=False)
    rig.edge.lost(opened=False)
    assert rig.edge.bd_seq == 0


def test_after_a_lost_connection_everything_is_born_again_with_seq_0():
    rig = alive()
    rig.edge.lost(opened=True)
    rig.connect()
    assert [(m.kind, m.seq) for m in rig.turn()] == [("NBIRTH", 0), ("DBIRTH", 1)]


def test_a_device_that_is_lost_dies_and_is_born_when_it_comes_back():
    rig = alive()
    rig.edge.lose("press")
    assert rig.kinds() == ["DDEATH"]
    rig.edge.find("press")
    rig.turn()
    rig.tell("press", "note", "last words")
    rig.edge.lose("press")
    assert rig.kinds(0.0) == ["DDATA", "DDEATH"]
    rig.tell("press", "note", "not told")
    assert rig.kinds() == []
    rig.edge.find("press")
    (birth,) = rig.turn()
    assert birth.kind == "DBIRTH"
    assert [m.value for m in birth.metrics if m.name == "note"] == ["not told"]


def test_a_removed_device_dies_and_is_forgotten():
    rig = alive()
    rig.edge.remove("press")
    assert rig.kinds() == ["DDEATH"]
    assert rig.edge.devices() == []
    rig.edge.declare("press", PRESS)
    assert rig.kinds() == ["DBIRTH"]


def test_a_device_with_new_metrics_is_born_again_and_the_same_ones_are_not():
    rig = alive()
    rig.tell("press", "oil", 7.0)
    rig.turn()
    rig.edge.declare("press", PRESS)
    assert rig.kinds() == []
    rig.edge.declare("press", [*PRESS, Metric("new", Type.INT64)])
    (birth,) = rig.turn()
    assert (birth.kind, {m.name: m.value for m in birth.metrics}) == ("DBIRTH", {"oil": 7.0, "note": None, "new": None})


def test_new_metrics_of_the_node_bring_the_whole_birth_sequence():
    rig = alive()
    rig.edge.declare(None, [*NODE, Metric("new", Type.INT64)])
    assert rig.kinds(2.0) == ["NBIRTH", "DBIRTH"]


# ---- rebirth --------------------------------------------------------------------------------------------------------------


def want_rebirth(rig: Rig) -> None:
    assert rig.edge.command([Received(REBIRTH, None, None, True)]) == ([], [])
    rig.monitor.rebirth_wanted = True


def test_a_rebirth_stops_the_data_and_says_all_births_with_the_same_bd_seq():
    rig = alive()
    rig.turn(5.0)
    rig.tell(None, "Temp", 1.0)
    want_rebirth(rig)
    said = rig.turn()
    assert [m.kind for m in said] == ["NBIRTH", "DBIRTH"]
    assert next(m.value for m in said[0].metrics if m.name == "bdSeq") == 0
    assert rig.kinds() == []


def test_many_hosts_that_ask_for_a_rebirth_are_answered_with_one_and_none_is_forgotten():
    rig = alive()
    rig.turn(5.0)
    for _ in range(50):
        want_rebirth(rig)
    assert rig.kinds(0.01) == ["NBIRTH", "DBIRTH"]
    for _ in range(50):
        want_rebirth(rig)
        rig.tell("press", "oil", rig.wall)
        assert rig.kinds(0.01) == []
    assert rig.kinds(1.0) == ["NBIRTH", "DBIRTH"]


def test_a_rebirth_with_false_is_none():
    rig = alive()
    assert rig.edge.command([Received(REBIRTH, None, None, False)]) == ([], [])
    assert rig.kinds(5.0) == []


# ---- the primary host -----------------------------------------------------------------------------------------------------


def test_births_wait_for_the_primary_host():
    rig = Rig(primary_host=True)
    rig.connect()
    assert rig.kinds() == []
    rig.edge.host(False, 500)
    assert rig.kinds(60.0) == []
    rig.edge.host(True, 1000)
    assert rig.kinds() == ["NBIRTH", "DBIRTH"]


def test_the_session_ends_when_the_primary_host_goes_but_not_for_an_older_death():
    rig = Rig(primary_host=True)
    rig.connect()
    rig.edge.host(True, 1000)
    rig.turn()
    rig.edge.host(False, 999)  # of the host's session before
    assert rig.kinds() == []
    rig.edge.host(False, 1000)
    assert rig.kinds() == ["NDEATH"]
    rig.connect()
    rig.edge.host(True, 900)
    assert rig.kinds() == []
    rig.edge.host(True, 1000)
    assert rig.kinds() == ["NBIRTH", "DBIRTH"]


def test_the_first_state_is_believed_whatever_its_time():
    rig = Rig(primary_host=True)
    rig.connect()
    rig.edge.host(True, 1)
    assert rig.kinds() == ["NBIRTH", "DBIRTH"]


def test_with_several_brokers_the_next_is_tried_where_the_host_is_offline_or_silent():
    rig = Rig(primary_host=True, brokers=2)
    rig.connect()
    rig.edge.host(False, 1000)
    assert rig.kinds() == ["NDEATH"]
    assert (rig.edge.broker, rig.edge.state) == (1, "offline")
    rig.connect()
    assert rig.kinds(10.0) == []
    assert rig.kinds(31.0) == ["NDEATH"]
    assert rig.edge.broker == 0
    rig.connect()
    rig.edge.host(True, 2000)
    assert rig.kinds() == ["NBIRTH", "DBIRTH"]


def test_what_one_broker_said_of_the_host_is_not_held_against_another():
    rig = Rig(primary_host=True, brokers=2)
    rig.connect()
    rig.edge.host(True, 5000)
    rig.turn()
    rig.edge.host(False, 5000)
    rig.turn()
    rig.connect()
    rig.edge.host(True, 100)
    assert rig.kinds() == ["NBIRTH", "DBIRTH"]


# ---- store and forward ----------------------------------------------------------------------------------------------------


def test_values_of_the_time_without_a_host_follow_the_births_as_history_and_the_newest_is_in_the_birth():
    rig = Rig(primary_host=True)
    for i in range(5):
        rig.wall += 1.0
        rig.tell("press", "oil", float(i))
        rig.tell("press", "note", str(i))
    rig.connect()
    rig.edge.host(True, 1000)
    said = rig.turn()
    assert [m.kind for m in said] == ["NBIRTH", "DBIRTH"]
    assert [m.value for m in said[1].metrics if m.name == "oil"] == [4.0]
    (history,) = rig.turn()
    assert [(m.name, m.value, m.historical, m.at - WALL) for m in history.metrics] == [
        ("oil", float(i), True, i + 1.0) for i in range(4)
    ]
    assert rig.turn() == []


def test_live_values_go_before_history_and_history_in_portions():
    rig = Rig()
    for i in range(600):
        rig.wall += 1.0
        rig.tell("press", "oil", float(i))
    rig.connect()
    rig.turn()
    rig.tell("press", "oil", -1.0)
    live, history = rig.turn()
    assert [m.value for m in live.metrics] == [-1.0]
    assert len(history.metrics) == 250
    assert rig.turn(0.01) == []
    rig.turn()
    rig.turn()
    told = [m.value for message in rig.sent for m in message.metrics if m.historical]
    assert told == [float(i) for i in range(599)]


def test_the_oldest_are_dropped_where_too_many_are_kept_and_counted():
    rig = Rig(keep=10)
    for i in range(100):
        rig.wall += 1.0
        rig.tell("press", "oil", float(i))
    assert (rig.edge.waiting, rig.edge.dropped) == (10, 90)
    rig.connect()
    rig.turn()
    rig.turn()
    assert [m.value for m in rig.sent[-1].metrics] == [float(i) for i in range(90, 99)]


def test_a_measurement_that_comes_late_is_history_and_leaves_the_live_value_alone():
    rig = alive()
    rig.wall += 5.0
    rig.tell("press", "oil", 5.0)
    rig.turn()
    rig.tell("press", "oil", 3.0, ago=2.0)
    (message,) = rig.turn()
    assert [(m.value, m.historical) for m in message.metrics] == [(3.0, True)]
    assert rig.edge.value("press", "oil") == 5.0


def test_a_clock_that_was_set_back_makes_no_value_late():
    rig = alive()
    rig.tell("press", "oil", 5.0)
    rig.turn()
    rig.edge.update("press", "oil", 6.0, rig.wall - 3600, rig.wall - 3600, GOOD)
    assert rig.edge.value("press", "oil") == 6.0


def test_what_was_not_fetched_for_long_is_bounded_and_the_births_put_it_right():
    rig = alive(keep=50)
    for i in range(500):
        rig.tell("press", "oil", float(i))
        rig.tell("press", "note", str(i))
    assert rig.edge.waiting + rig.edge.dropped <= 500
    rig.turn(2.0)
    assert rig.monitor.values["press", "oil"][0] == 499.0


# ---- commands and aliases -------------------------------------------------------------------------------------------------


def test_commands_are_told_from_mistakes_and_each_mistake_has_its_words():
    rig = alive()
    orders, refused = rig.edge.command(
        [
            Received("Submit", None, None, "{}"),
            Received("Submit", None, None, 7),
            Received("Node Control/Reboot", None, None, True),
            Received("Jobs/Done", None, None, 3),
        ]
    )
    assert orders == [("Submit", "{}")]
    assert refused == [
        "Submit: expected text, found 7",
        "there is no metric 'Node Control/Reboot'",
        "'Jobs/Done' only reports, it cannot be written",
    ]


def test_with_aliases_births_say_both_data_the_number_alone_and_commands_may_use_it():
    rig = alive(aliases=True)
    alias = next(m.alias for m in rig.sent[0].metrics if m.name == "Submit")
    assert rig.edge.command([Received("", alias, None, "{}")]) == ([("Submit", "{}")], [])
    rig.tell("press", "oil", 1.0)
    assert rig.kinds() == ["DDATA"]


# ---- whatever the order ---------------------------------------------------------------------------------------------------

EVENTS = st.one_of(
    st.tuples(st.just("connect")),
    st.tuples(st.just("lose connection"), st.booleans()),
    st.tuples(st.just("host"), st.booleans(), st.integers(0, 6)),
    st.tuples(st.just("rebirth")),
    st.tuples(st.just("value"), st.sampled_from([None, "press", "mill"]), st.integers(0, 3)),
    st.tuples(st.just("lose"), st.just("press")),
    st.tuples(st.just("find"), st.just("press")),
    st.tuples(st.just("declare"), st.sampled_from(["press", "mill"]), st.integers(1, 3)),
    st.tuples(st.just("remove"), st.just("mill")),
    st.tuples(st.just("turn"), st.sampled_from([0.0, 0.05, 0.3, 1.5])),
    st.tuples(st.just("turn"), st.sampled_from([0.0, 0.05, 0.3, 1.5])),
)


@settings(max_examples=300)
@given(
    st.lists(EVENTS, min_size=20, max_size=80),
    st.booleans(),
    st.booleans(),
    st.integers(0, 30),
    st.integers(1, 2),
    st.booleans(),
)
def test_whatever_the_order_of_events_every_message_keeps_the_rules(events, primary_host, aliases, keep, brokers, begun):
    rig = Rig(primary_host=primary_host, aliases=aliases, keep=keep, brokers=brokers)
    rig.edge.declare("mill", PRESS)
    if begun:
        rig.connect()
        rig.edge.host(True, 0)
        rig.turn()
    for what, *words in events:
        play(rig, what, words)
        assert rig.edge.waiting <= keep


@settings(max_examples=200)
@given(st.lists(EVENTS, min_size=10, max_size=80), st.booleans())
def test_every_stored_value_reaches_the_host_or_is_counted_as_dropped(events, primary_host):
    """As far as messages that were sent arrive: QoS 0 is all that Sparkplug has for them."""
    rig = Rig(primary_host=primary_host, keep=20)
    told = [value for what, *words in events if (value := play(rig, what, words)) is not None]
    for _ in range(8):
        if rig.edge.state == "offline":
            rig.connect()
        rig.edge.host(True, 100)
        rig.turn(1.5)
    seen = Counter(m.value for message in rig.sent for m in message.metrics)
    assert sum(value not in seen for value in told) <= rig.edge.dropped
    assert rig.edge.waiting == 0


def play(rig: Rig, what: str, words: list) -> Value:
    """One event; the value, where it told a stored one that has to arrive."""
    edge = rig.edge
    rig.wall += 0.001
    if what == "connect" and edge.state == "offline":
        rig.connect()
    elif what == "lose connection" and (edge.state != "offline" or not words[0]):
        edge.lost(opened=edge.state != "offline")
    elif what == "host":
        edge.host(*words)
    elif what == "rebirth" and edge.state == "alive":
        want_rebirth(rig)
    elif what == "value":
        device, back = words
        name = "Jobs/Done" if device is None else "oil"
        if edge.has(device, name):
            value = round(rig.wall - WALL, 6)
            there = device is None or edge._things[device].there
            edge.update(device, name, int(value * 1000) if device is None else value, rig.wall - back, rig.wall, GOOD)
            return edge.value(device, name) if there and back == 0 and device != "mill" else None
    elif what == "lose" or what == "find":
        getattr(edge, what)(*words)
    elif what == "declare":
        device, count = words
        edge.declare(device, [*PRESS, *(Metric(f"m{i}", Type.INT64) for i in range(count))])
    elif what == "remove" and edge.has("mill", "oil"):
        edge.remove("mill")
    elif what == "turn":
        rig.turn(*words)
    return None


def test_a_metric_keeps_its_alias_for_life():
    rig = alive(aliases=True)
    before = {m.name: m.alias for m in rig.sent[1].metrics}
    rig.edge.declare("press", [replace(m) for m in (PRESS[0], Metric("new", Type.INT64), PRESS[1])])
    (birth,) = rig.turn()
    assert {m.name: m.alias for m in birth.metrics}.items() >= before.items()
