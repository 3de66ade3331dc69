"""Sparkplug payloads on the wire: what we send as others read it, and whatever others may send."""

from __future__ import annotations

import contextlib
import gc
import random
import tracemalloc
from typing import Any

import pytest
from denoised.daemon.core.sparkplug_metric import GOOD, STALE, Message, Metric, Received, Type
from denoised.daemon.sparkplug_payload import PayloadError, decode, encode
from denoised.tests.daemon.sparkplug_monitor import packet
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 65536
AT = 1_800_000_000.25
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
OF_TYPE = {
    Type.INT8: st.integers(-(2**7), 2**7 - 1),
    Type.INT16: st.integers(-(2**15), 2**15 - 1),
    Type.INT32: st.integers(-(2**31), 2**31 - 1),
    Type.INT64: st.integers(-(2**63), 2**63 - 1),
    Type.UINT8: st.integers(0, 2**8 - 1),
    Type.UINT16: st.integers(0, 2**16 - 1),
    Type.UINT32: st.integers(0, 2**32 - 1),
    Type.UINT64: st.integers(0, 2**64 - 1),
    Type.FLOAT: st.floats(width=32, allow_nan=False),
    Type.DOUBLE: st.floats(allow_nan=False),
    Type.BOOLEAN: st.booleans(),
    Type.STRING: TEXT,
    Type.DATETIME: st.integers(0, 2**64 - 1),
    Type.TEXT: TEXT,
    Type.UUID: TEXT,
}
METRICS = st.sampled_from(list(Type)).flatmap(
    lambda t: st.builds(
        Metric,
        TEXT,
        st.just(t),
        st.none() | OF_TYPE[t],
        st.integers(0, 2**40).map(lambda ms: ms / 1000),
        st.sampled_from([None, 0, GOOD, STALE]),
        st.dictionaries(TEXT, TEXT | st.floats(allow_nan=False), max_size=2),
        historical=st.booleans(),
    )
)


def birth(*metrics: Metric) -> Message:
    return Message("NBIRTH", None, metrics, AT, 0)


@given(st.lists(METRICS, max_size=5))
def test_what_is_encoded_is_decoded_as_it_was(metrics):
    read = decode(encode(birth(*metrics)), 1 << 20)
    assert read == [Received(m.name, None, m.type, m.value, m.at, m.historical) for m in metrics]


def test_the_wire_is_that_of_the_specification():
    """Field numbers and integer widths, byte by byte."""
    metric = Metric("a", Type.INT8, -1, 0.001)
    told = encode(Message("NBIRTH", None, (metric,), 0.002, 7)), encode(Message("DDATA", "d", (metric,), 0.002, 7))
    assert told == (
        bytes.fromhex("0802 120a 0a0161 1801 2001 50ff01 1807"),
        bytes.fromhex("0802 120a 0a0161 1801 2001 50ff01 1807"),
    )


def test_data_says_the_alias_in_place_of_the_name():
    metric = Metric("a", Type.INT8, 1, AT, alias=9)
    seen = packet("spBv1.0/g/NDATA/n", encode(Message("NDATA", None, (metric,), AT, 1))).metrics
    assert [(m.name, m.alias) for m in seen] == [(None, 9)]


def test_integers_are_read_at_whatever_width_the_sender_filled():
    """Tahu's Python and Java send -1 as Int8 in different ways, and some put an UInt32 into the long field."""
    for raw in ("50ff01", "50ffffffff0f", "58ffffffffffffffffff01"):
        metric = bytes.fromhex("0a0161" + "2001" + raw)
        assert decode(b"\x12" + bytes([len(metric)]) + metric, LIMIT)[0].value == -1


def test_what_holds_more_than_one_value_is_passed_over_and_the_rest_is_read():
    dataset = bytes.fromhex("0a0164 2010 8a0102 0801")
    number = bytes.fromhex("0a016e 2003 5005")
    read = decode(b"".join(b"\x12" + bytes([len(m)]) + m for m in (dataset, number)), LIMIT)
    assert [(m.name, m.value) for m in read] == [("d", None), ("n", 5)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xff\xff", "not a Sparkplug B payload"),
        (b'{"metrics": []}', "not a Sparkplug B payload"),
        (b"\x12\x03\x0a\x01\xff", "not a Sparkplug B payload"),
        (b"\x12\x00" * 5000, "5000 metrics, at most 4096"),
        (b"\x00" * 70000, "70000 bytes, at most 65536"),
    ],
)
def test_bytes_that_are_no_payload_are_refused_in_words(data, words):
    with pytest.raises(PayloadError, match=words):
        decode(data, LIMIT)


def mutations(seed: int, count: int):
    """Random bytes, and real payloads with bytes changed, cut out, doubled."""
    rng = random.Random(seed)
    metrics = [Metric(f"m{i}", Type.INT64, i, AT, GOOD, {"engUnit": "C"}, alias=i) for i in range(5)]
    good = encode(birth(*metrics, Metric("s", Type.STRING, "text", AT), Metric("d", Type.DOUBLE, 1.5, AT)))
    for _ in range(count):
        if rng.random() < 0.2:
            yield rng.randbytes(rng.randrange(200))
            continue
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data) or 1)
            what = rng.randrange(4)
            if what == 0 and data:
                data[at] = rng.randrange(256)
            elif what == 1:
                del data[at : at + rng.randrange(20)]
            elif what == 2:
                data[at:at] = data[at : at + rng.randrange(40)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(10))
        yield bytes(data)


def test_no_bytes_crash_the_reader_and_none_stay_in_memory():
    def read_all(seed: int) -> int:
        taken = 0
        for data in mutations(seed, 5000):
            with contextlib.suppress(PayloadError):
                taken += all(isinstance(m, Received) for m in decode(data, LIMIT))
        gc.collect()
        return taken

    assert 0 < read_all(1) < 5000
    tracemalloc.start()
    read_all(2)
    before = tracemalloc.get_traced_memory()[0]
    read_all(3)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


# ---- another library ------------------------------------------------------------------------------------------------------


def test_eclipse_tahu_reads_the_types_that_we_send_as_we_meant_them(tahu):
    """It takes small negative integers for large ones, and an UInt32 from another field: we send neither."""
    values: dict[Type, Any] = {
        Type.INT32: -70000, Type.UINT8: 250, Type.UINT16: 65000, Type.FLOAT: 0.5, Type.DOUBLE: 1.1, Type.BOOLEAN: True,
        Type.STRING: "Öl 61 °C", Type.TEXT: "", Type.UUID: "0-0", Type.INT64: "-1099511627776",
    }  # fmt: skip
    metrics = [Metric(t.name, t, v if t is not Type.INT64 else -(2**40), AT, GOOD) for t, v in values.items()]
    metrics.append(Metric("null", Type.DOUBLE, None, AT, STALE, {"engUnit": "C", "engLow": -1.5}))
    (read,) = tahu([encode(birth(*metrics))])
    assert {m["name"]: m.get("value") for m in read["metrics"]} == {t.name: v for t, v in values.items()} | {"null": None}
