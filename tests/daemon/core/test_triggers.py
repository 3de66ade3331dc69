from __future__ import annotations

import pytest
from denoised.config.refusal import Refusal
from denoised.config.tree import Condition, Reply, Trigger
from denoised.daemon.core import reply, triggers


@pytest.mark.parametrize(
    ("topic_filter", "topic", "yes"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("+/b", "a/b", True),
        ("+", "/a", False),
        ("/+", "/a", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
    ],
)
def test_filters_match_as_mqtt_says(topic_filter, topic, yes):
    assert triggers.matches(topic_filter, topic) is yes


PAYLOAD = {"part": {"id": 12, "ok": True, "codes": [{"n": 7}]}, "n": 1}


@pytest.mark.parametrize(("path", "value"), [("n", 1), ("part.id", 12), ("part.codes[0].n", 7), ("part.codes[0]", {"n": 7})])
def test_field_paths_reach_into_the_payload(path, value):
    assert triggers.at(PAYLOAD, path) == value


@pytest.mark.parametrize("path", ["x", "part.x", "part.codes[9]", "n.x", "part.codes.n", "part[0]"])
def test_a_missing_field_is_a_key_error(path):
    with pytest.raises(KeyError):
        triggers.at(PAYLOAD, path)


@pytest.mark.parametrize(
    ("when", "yes"),
    [
        (None, True),
        (Condition("part.ok", True), True),
        (Condition("part.ok", 1), False),
        (Condition("n", True), False),
        (Condition("n", 1.0), True),
        (Condition("x", None), False),
    ],
)
def test_a_condition_fires_on_the_value_and_nothing_like_it(when, yes):
    assert triggers.fires(when, PAYLOAD) is yes


def test_a_trigger_fills_its_params_from_the_payload():
    trigger = Trigger(
        topic="a", kind="k", params={"image": {"camera": "c"}, "count": "$.part.codes[0].n"}, id="$.part.id", deadline=0.5
    )
    assert triggers.request(trigger, PAYLOAD) == {
        "params": {"image": {"camera": "c"}, "count": 7},
        "priority": 4,
        "deliver": "file",
        "id": "12",
        "deadline_ms": 500,
    }


def test_a_field_the_payload_lacks_is_named():
    with pytest.raises(Refusal, match="no field 'severity'") as e:
        triggers.request(Trigger(topic="a", kind="k", params={"severity": "$.severity"}), PAYLOAD)
    assert (e.value.code, e.value.field) == ("bad-request", "severity")


@pytest.mark.parametrize(("state", "output", "number"), [("done", {"items": [1, 2]}, 2), ("done", {}, 1), ("failed", {}, 0)])
def test_the_short_reply_is_json_or_a_number(state, output, number):
    final = {"id": "a", "state": state, "output": output, "run_ms": 5}
    assert reply.plc(final, Reply("t", "number").form) == number
    assert reply.plc(final, "json") == {"id": "a", "ok": state == "done", "count": number, "run_ms": 5}
