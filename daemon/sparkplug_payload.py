"""Sparkplug B payloads as bytes. The only file that imports protobuf (extra `sparkplug`).

The messages are described here, by the field numbers of the specification (eclipse-sparkplug/sparkplug, chapter 6), and
made into classes at import: a file that protoc generates runs with few versions of the protobuf library, a description
with all since 4.22 (docs/decisions/0012-sparkplug-schema.md).
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from .core.sparkplug_metric import SIGNED, UNSIGNED, Message, Received, Type, Value, as_type

_QUALITY = "Quality"
_MOST_METRICS = 4096
"""Metrics of one received payload: four bytes can stand for one, and each costs a hundred times as much here."""

# Field of a message: number, name, type; `*` repeated, `=` one of the value fields. On the wire text and messages are bytes
# with a length. Text is bytes here, for the library's implementations differ in what they make of text that is not UTF-8;
# and so are values that hold more than one (DataSet, Template, extension): they are passed over, and cost nothing.
_SCHEMA = {
    "PropertyValue": """1 type uint32, 2 is_null bool, 3 =int_value uint32, 4 =long_value uint64, 5 =float_value float,
        6 =double_value double, 7 =boolean_value bool, 8 =string_value bytes, 9 =propertyset_value bytes,
        10 =propertysets_value bytes""",
    "PropertySet": "1 *keys bytes, 2 *values PropertyValue",
    "Metric": """1 name bytes, 2 alias uint64, 3 timestamp uint64, 4 datatype uint32, 5 is_historical bool,
        6 is_transient bool, 7 is_null bool, 8 metadata bytes, 9 properties PropertySet, 10 =int_value uint32,
        11 =long_value uint64, 12 =float_value float, 13 =double_value double, 14 =boolean_value bool,
        15 =string_value bytes, 16 =bytes_value bytes, 17 =dataset_value bytes, 18 =template_value bytes,
        19 =extension_value bytes""",
    "Payload": "1 timestamp uint64, 2 *metrics Metric, 3 seq uint64, 4 uuid bytes, 5 body bytes",
}


class PayloadError(ValueError):
    """Bytes that are no Sparkplug payload, or more than is taken: what was found and what is allowed."""


def _payload_class() -> Any:
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="denoised/sparkplug.proto", package="denoised.sparkplug", syntax="proto2")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, field, kind in (words.split() for words in fields.split(",")):
            label = proto.LABEL_REPEATED if field[0] == "*" else proto.LABEL_OPTIONAL
            made = message.field.add(name=field.strip("*="), number=int(number), label=label)
            if kind in _SCHEMA:
                made.type, made.type_name = proto.TYPE_MESSAGE, f".denoised.sparkplug.{kind}"
            else:
                made.type = getattr(proto, f"TYPE_{kind.upper()}")
            if field[0] == "=":
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                made.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()  # of our own: another library in this process may have registered the same
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("denoised.sparkplug.Payload"))


_Payload = _payload_class()


def encode(message: Message) -> bytes:
    """The payload of a message of ours. Births say name, type and properties of each metric, data name (or alias) and type.

    Data should do without the type (payloads-metric-datatype-not-req), but then the JavaScript reader of Eclipse Tahu, on which
    other hosts are built, reads no value. It costs two bytes.
    """
    payload, birth = _Payload(timestamp=_ms(message.at)), message.kind.endswith("BIRTH")
    if message.seq is not None:
        payload.seq = message.seq
    for metric in message.metrics:
        out = payload.metrics.add(timestamp=_ms(metric.at), datatype=metric.type)
        if birth or metric.alias is None:
            out.name = _text(metric.name)
        if metric.alias is not None:
            out.alias = metric.alias
        if metric.historical:
            out.is_historical = True
        if metric.value is None:
            out.is_null = True
        else:
            _set(out, metric.type, metric.value)
        if metric.quality is not None:
            _property(out, _QUALITY, Type.INT32, metric.quality)
        for key, value in metric.properties.items() if birth else ():
            _property(out, key, Type.STRING if isinstance(value, str) else Type.DOUBLE, value)
    data: bytes = payload.SerializeToString()
    return data


def decode(data: bytes, limit: int) -> list[Received]:
    """The metrics of a payload of at most `limit` bytes; `PayloadError` where it is none or more."""
    if len(data) > limit:
        raise PayloadError(f"{len(data)} bytes, at most {limit} are taken")
    try:
        payload = _Payload.FromString(data)
        if len(payload.metrics) > _MOST_METRICS:
            raise PayloadError(f"{len(payload.metrics)} metrics, at most {_MOST_METRICS} are taken")
        return [_received(metric) for metric in payload.metrics]
    except (DecodeError, UnicodeDecodeError) as e:
        raise PayloadError(f"not a Sparkplug B payload: {e}") from e


def _received(metric: Any) -> Received:
    which = metric.WhichOneof("value")
    value: Value = None
    if which is not None and not metric.is_null and which.removesuffix("_value") in _SINGLE:
        value = getattr(metric, which)
        if isinstance(value, bytes):
            value = value.decode()
    kind = metric.datatype if metric.HasField("datatype") else None
    if value is not None and kind is not None:
        with contextlib.suppress(ValueError):  # whoever wants the value says what is wrong with it
            value = as_type(value, Type(kind))
    return Received(
        metric.name.decode(),
        metric.alias if metric.HasField("alias") else None,
        kind,
        value,
        metric.timestamp / 1000 if metric.HasField("timestamp") else None,
        metric.is_historical,
    )


_SINGLE = {"int", "long", "float", "double", "boolean", "string"}


def _set(out: Any, kind: Type, value: Any) -> None:
    """Into the field of the type (payloads, table of datatypes); negative integers in two's complement of its width."""
    if kind in (Type.INT64, Type.UINT64, Type.DATETIME):
        out.long_value = value & 2**64 - 1
    elif kind in SIGNED or kind in UNSIGNED:
        out.int_value = value & (1 << (SIGNED.get(kind) or UNSIGNED[kind])) - 1
    elif kind is Type.FLOAT:
        out.float_value = value
    elif kind is Type.DOUBLE:
        out.double_value = value
    elif kind is Type.BOOLEAN:
        out.boolean_value = value
    else:
        out.string_value = _text(value)


def _property(out: Any, key: str, kind: Type, value: Any) -> None:
    out.properties.keys.append(_text(key))
    _set(out.properties.values.add(type=kind), kind, value)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _ms(at: float) -> int:
    return max(0, math.floor(at * 1000 + 0.5))
