from __future__ import annotations

from dataclasses import dataclass

import pytest
from denoised.config.refusal import CODES, Refusal
from denoised.daemon.core.intake import Envelope, decode, read_request, usable_id
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True)
class Params:
    n: int = 1


class Kind:
    name = "k"
    params = Params

    def check(self, params, site):
        if params.n > 10:
            raise Refusal("bad-request", "n is at most 10", "params.n")
        return params.n

    def camera(self, params):
        return f"camera-{params.n}"


def read(body, **around):
    return read_request("k", body, Envelope(100.0, **around), {"k": Kind()}, None, lambda: "made-up")


def test_a_full_request_becomes_a_job():
    job = read(
        {"id": "a", "priority": 9, "deadline_ms": 500, "seed": 3, "deliver": "mqtt", "params": {"n": 2}},
        response_topic="r",
        correlation=b"\xff",
        expiry_s=7,
    )
    assert (job.id, job.priority, job.deadline_at, job.start_by, job.seed, job.items) == ("a", 9, 100.5, 107.0, 3, 2)
    assert (job.deliver, job.response_topic, job.correlation, job.camera) == ("mqtt", "r", b"\xff", "camera-2")


def test_a_request_without_an_id_gets_one():
    assert read({"params": {}}).id == "made-up"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "params"),
        ([], None),
        (3, None),
        (None, None),
        ({"params": []}, "params"),
        ({"params": {}, "id": ""}, "id"),
        ({"params": {}, "id": "a/b"}, "id"),
        ({"params": {}, "id": "a" * 65}, "id"),
        ({"params": {}, "id": 7}, "id"),
        ({"params": {}, "priority": 10}, "priority"),
        ({"params": {}, "priority": "high"}, "priority"),
        ({"params": {}, "deadline_ms": 0}, "deadline_ms"),
        ({"params": {}, "deadline_ms": 1.5}, "deadline_ms"),
        ({"params": {}, "seed": -1}, "seed"),
        ({"params": {}, "seed": 2**63}, "seed"),
        ({"params": {}, "seed": True}, "seed"),
        ({"params": {}, "deliver": "ftp"}, "deliver"),
        ({"params": {"n": "x"}}, "params.n"),
        ({"params": {"n": 11}}, "params.n"),
        ({"params": {"m": 1}}, "params.m"),
        ({"params": {}, "prams": {}}, "prams"),
    ],
)
def test_a_wrong_field_is_named(body, field):
    with pytest.raises(Refusal) as e:
        read(body)
    assert (e.value.code, e.value.field) == ("bad-request", field)


def test_all_that_is_wrong_is_said_at_once_with_a_did_you_mean():
    with pytest.raises(Refusal) as e:
        read({"params": {}, "priorty": 3, "seed": "x"})
    assert "did you mean 'priority'?" in e.value.message
    assert "seed" in e.value.message


def test_an_unknown_kind_is_refused_with_a_did_you_mean():
    with pytest.raises(Refusal, match="did you mean 'kind'") as e:
        read_request("knd", {"params": {}}, Envelope(0.0), {"kind": Kind()}, None, str)
    assert e.value.code == "unknown-kind"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"NaN", b'{"a": Infinity}', b"1e999", b'{"a":1}x', b"[" * 100_000, b"\x00", b'{"params":{"a":1e400}}'],
)
def test_what_is_not_json_is_refused(payload):
    with pytest.raises(Refusal, match="not JSON") as e:
        decode(payload, 10**6)
    assert e.value.code == "bad-request"


def test_what_is_not_utf8_is_refused():
    with pytest.raises(Refusal, match="not UTF-8") as e:
        decode(b'{"id": "\xff"}', 1000)
    assert e.value.code == "bad-request"


def test_a_payload_over_the_limit_is_too_large():
    with pytest.raises(Refusal, match="at most 10") as e:
        decode(b"x" * 11, 10)
    assert e.value.code == "too-large"


@pytest.mark.parametrize(("body", "wanted"), [({"id": "ok-1"}, "ok-1"), ({"id": "a b"}, None), ({"id": 3}, None), ([], None)])
def test_only_a_lawful_id_is_usable_in_a_topic(body, wanted):
    assert usable_id(body) == wanted


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(payload):
    try:
        body = decode(payload, 10**6)
        read(body)
    except Refusal as e:
        assert e.code in CODES


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["id", "priority", "deadline_ms", "seed", "deliver", "params", "n"])


@given(st.dictionaries(fields, json_values, max_size=7))
def test_no_value_in_any_field_crashes_the_reader(body):
    try:
        job = read(body)
    except Refusal as e:
        assert e.code in CODES
    else:
        assert usable_id({"id": job.id}) == job.id
