"""What a SCADA host sees of an edge node, and the rules that every message of it has to keep.

The rules are the assertions of the Sparkplug 3.0 specification that its TCK checks on an edge node (eclipse-sparkplug/
sparkplug, profile edge and the monitor beside it), re-stated; their ids stand beside the checks. The payload is read from
the wire by the few lines below, which share nothing with the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

INT64, BOOLEAN, STRING = 4, 11, 12
# Datatype -> field of the value (payloads, table of datatypes).
VALUE_FIELD = dict.fromkeys((1, 2, 3, 5, 6, 7), 10) | {4: 11, 8: 11, 13: 11, 9: 12, 10: 13, 11: 14, 12: 15, 14: 15, 15: 15}


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protobuf message: int, 8 or 4 raw bytes, or the bytes of text or a message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, data[at : at + size]
        at += size


@dataclass(frozen=True)
class Seen:
    """One metric on the wire; None is a field that was not there."""

    name: str | None
    alias: int | None
    at_ms: int | None
    type: int | None
    historical: bool
    null: bool
    value_field: int | None
    value: Any
    properties: dict[str, tuple[int, Any]]


@dataclass(frozen=True)
class Packet:
    """One message of the edge node."""

    kind: str
    group: str
    node: str
    device: str | None
    qos: int
    retained: bool
    at_ms: int | None
    seq: int | None
    metrics: list[Seen]

    def __getitem__(self, name: str) -> Any:
        """The value of the metric of this name."""
        return next(m.value for m in self.metrics if m.name == name)

    def __contains__(self, name: str) -> bool:
        return any(m.name == name for m in self.metrics)


def value_of(number: int, raw: Any, kind: int | None) -> Any:
    if number in (10, 11):
        bits = {1: 8, 2: 16, 3: 32, 4: 64}.get(kind or 0)
        return raw - (1 << bits) if bits and raw >= 1 << bits - 1 else raw
    if number in (12, 13):
        return struct.unpack("<f" if number == 12 else "<d", raw)[0]
    return bool(raw) if number == 14 else raw.decode()


def properties_of(data: bytes) -> dict[str, tuple[int, Any]]:
    keys, values = [], []
    for number, raw in fields(data):
        if number == 1:
            keys.append(raw.decode())
        else:
            parts = dict(fields(raw))
            ((place, value),) = [(n, v) for n, v in parts.items() if n > 2]
            values.append((parts[1], value_of({3: 10, 4: 11, 5: 12, 6: 13, 7: 14, 8: 15}[place], value, parts[1])))
    assert len(keys) == len(values)  # payloads-propertyset-keys-array-size, -values-array-size
    return dict(zip(keys, values))


def metric_of(data: bytes) -> Seen:
    parts = dict(fields(data))
    places = [n for n in parts if 10 <= n <= 19]
    assert len(places) <= 1
    place = places[0] if places else None
    return Seen(
        parts[1].decode() if 1 in parts else None,
        parts.get(2),
        parts.get(3),
        parts.get(4),
        bool(parts.get(5)),
        bool(parts.get(7)),
        place,
        None if place is None else value_of(place, parts[place], parts.get(4)),
        properties_of(parts[9]) if 9 in parts else {},
    )


def packet(topic: str, payload: bytes, qos: int = 0, retained: bool = False) -> Packet:
    """topic-structure: spBv1.0/group/kind/node, and /device where the kind begins with D."""
    namespace, group, kind, node, *device = topic.split("/")
    assert namespace == "spBv1.0"
    assert kind in ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")
    assert len(device) == (kind[0] == "D")
    found = list(fields(payload))
    parts = dict(found)
    metrics = [metric_of(raw) for number, raw in found if number == 2]
    return Packet(kind, group, node, device[0] if device else None, qos, retained, parts.get(1), parts.get(3), metrics)


@dataclass
class Monitor:
    """`see` each packet in order; AssertionError names the rule that it breaks. `will` is the payload of the CONNECT."""

    will: bytes | None = None
    bd_seq: int | None = None
    seq: int | None = None
    births: dict[str | None, dict[str, Seen]] = field(default_factory=dict)
    """What is alive, with the metrics of its birth; the node is None."""
    values: dict[tuple[str | None, str], Any] = field(default_factory=dict)
    rebirth_wanted: bool = False

    def connect(self, will: bytes) -> None:
        """topics-nbirth-bdseq-increment: one more than in the CONNECT before."""
        death = packet("spBv1.0/g/NDEATH/n", will)
        self._death(death)
        if self.bd_seq is not None:
            assert death["bdSeq"] == (self.bd_seq + 1) % 256
        self.bd_seq, self.will = death["bdSeq"], will
        self.births.clear()
        self.rebirth_wanted = False

    def see(self, p: Packet) -> None:
        assert not p.retained  # topics-*-mqtt
        if p.kind == "NDEATH":
            assert p.qos <= 1
            self._death(p)
            assert p["bdSeq"] == self.bd_seq  # payloads-ndeath-bdseq
            self.births.clear()
            return
        assert p.qos == 0
        assert p.at_ms is not None  # payloads-*-timestamp
        if p.kind == "NBIRTH":
            assert p.seq == 0  # topics-nbirth-seq-num
        else:
            assert self.seq is not None and p.seq == (self.seq + 1) % 256  # payloads-sequence-num-incrementing
        self.seq = p.seq
        {"BIRTH": self._birth, "DATA": self._data, "DEATH": self._device_death}[p.kind[1:]](p)

    def _death(self, p: Packet) -> None:
        assert p.kind == "NDEATH" and p.seq is None  # topics-ndeath-seq
        (metric,) = p.metrics  # topics-ndeath-payload
        assert (metric.name, metric.type, metric.value_field) == ("bdSeq", INT64, 11)
        assert 0 <= metric.value <= 255

    def _birth(self, p: Packet) -> None:
        if p.kind == "NBIRTH":
            self.births.clear()
            self.rebirth_wanted = False
            (bd_seq,) = [m for m in p.metrics if m.name == "bdSeq"]
            assert (bd_seq.type, bd_seq.value_field, bd_seq.value) == (INT64, 11, self.bd_seq)  # topics-nbirth-bdseq-matching
            (rebirth,) = [m for m in p.metrics if m.name == "Node Control/Rebirth"]
            assert (rebirth.type, rebirth.value, rebirth.alias) == (BOOLEAN, False, None)  # topics-nbirth-rebirth-metric
        else:
            assert None in self.births  # message-flow-device-birth-publish-nbirth-wait
        names = [m.name for m in p.metrics]
        assert len({n.lower() for n in names if n}) == len(names)  # case-sensitivity-metric-names
        folders = {n.rpartition("/")[0] for n in names if n}
        assert not folders & set(names)
        for m in p.metrics:
            assert m.name and m.at_ms is not None and m.type in VALUE_FIELD  # topics-nbirth-metrics
            assert m.value_field == (None if m.null else VALUE_FIELD[m.type])  # operational-behavior-data-publish-nbirth-values
            assert not m.historical
            self._quality(m)
            self.values[p.device, m.name] = (m.value, m.properties.get("Quality"))
        self.births[p.device] = {m.name: m for m in p.metrics if m.name}
        aliases = [m.alias for b in self.births.values() for m in b.values() if m.alias is not None]
        assert len(set(aliases)) == len(aliases)  # payloads-alias-uniqueness
        times = [m.at_ms or 0 for m in p.metrics if m.name not in ("bdSeq", "Node Control/Rebirth")]
        assert times == sorted(times)  # operational-behavior-data-publish-nbirth-order

    def _data(self, p: Packet) -> None:
        assert not self.rebirth_wanted  # operational-behavior-data-commands-rebirth-action-1
        assert p.device in self.births and p.metrics
        born = self.births[p.device]
        by_alias = {m.alias: m for m in born.values() if m.alias is not None}
        last = 0
        for m in p.metrics:
            assert m.at_ms is not None  # payloads-name-birth-data-requirement
            if by_alias and m.name is None:
                birth = by_alias[m.alias or 0]  # payloads-alias-data-cmd-requirement
            else:
                assert not by_alias and m.name in born  # topics-nbirth-metric-reqs
                birth = born[m.name]
            assert birth.name is not None
            assert m.type == birth.type in VALUE_FIELD  # it should be left out: see `sparkplug_payload.encode` why it is not
            assert m.value_field == (None if m.null else VALUE_FIELD[birth.type])
            self._quality(m)
            if not m.historical:
                assert m.at_ms >= last  # operational-behavior-data-publish-nbirth-order
                last = m.at_ms
                now = (m.value, m.properties.get("Quality"))
                assert now != self.values[p.device, birth.name]  # operational-behavior-data-publish-nbirth-change
                self.values[p.device, birth.name] = now

    def _device_death(self, p: Packet) -> None:
        assert p.device in self.births and not p.metrics
        del self.births[p.device]

    def _quality(self, m: Seen) -> None:
        if "Quality" in m.properties:
            kind, value = m.properties["Quality"]
            assert kind == 3 and value in (0, 192, 500)  # payloads-propertyset-quality-value-type, -value
