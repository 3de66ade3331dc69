"""The words of Sparkplug B: datatypes, a metric as it is told and as it is received, a message. Pure.

Names and numbers are those of the Sparkplug 3.0 specification, chapter 6 (eclipse-sparkplug/sparkplug).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

Value = bool | int | float | str | None
"""What a metric holds; None is null."""

BAD, GOOD, STALE = 0, 192, 500
"""All that the property `Quality` may be (payloads, quality codes)."""


class Type(IntEnum):
    """Datatypes of metrics (payloads, data types), but for those that hold more than one value."""

    INT8, INT16, INT32, INT64 = 1, 2, 3, 4
    UINT8, UINT16, UINT32, UINT64 = 5, 6, 7, 8
    FLOAT, DOUBLE = 9, 10
    BOOLEAN, STRING, DATETIME, TEXT, UUID = 11, 12, 13, 14, 15


SIGNED = {Type.INT8: 8, Type.INT16: 16, Type.INT32: 32, Type.INT64: 64}
UNSIGNED = {Type.UINT8: 8, Type.UINT16: 16, Type.UINT32: 32, Type.UINT64: 64, Type.DATETIME: 64}


@dataclass(frozen=True)
class Metric:
    """One metric and its value now. `at`: when that was acquired, seconds since 1970; 0 where it never was."""

    name: str
    type: Type
    value: Value = None
    at: float = 0.0
    quality: int | None = None
    """`BAD`, `GOOD` or `STALE`; None: the metric has no such property."""
    properties: Mapping[str, str | float] = field(default_factory=dict)
    """Said in births alone: engUnit, engLow, engHigh and the like."""
    stored: bool = False
    """Each of its values matters, not the newest alone: they are kept while no host can be told."""
    writable: bool = False
    alias: int | None = None
    historical: bool = False


@dataclass(frozen=True)
class Received:
    """A metric as somebody sent it: by name or by alias; the type is usually left out of data and commands.

    value: integers are unsigned as on the wire where `type` is not known. None: null, or nothing that is one value.
    """

    name: str
    alias: int | None
    type: int | None
    value: Value
    at: float | None = None
    historical: bool = False


@dataclass(frozen=True)
class Message:
    """To be published: `kind` is NBIRTH, NDATA, NDEATH, DBIRTH, DDATA or DDEATH; `at` is when it is sent."""

    kind: str
    device: str | None
    metrics: tuple[Metric, ...]
    at: float
    seq: int | None = None


def as_type(value: Value, wanted: Type) -> Value:
    """A received value as this type: integers in two's complement at the type's width. ValueError says what is wrong."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if wanted in SIGNED or wanted in UNSIGNED:
        bits = SIGNED.get(wanted) or UNSIGNED[wanted]
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if wanted in SIGNED else (0, (1 << bits) - 1)
        if isinstance(value, int) and number:
            # Senders fill the unsigned field at the type's width, at 32 or at 64 bits.
            for width in (bits, 32, 64) if wanted in SIGNED else ():
                if value > high and 1 << width - 1 <= value < 1 << width:
                    value -= 1 << width
            if low <= value <= high:
                return value
        raise ValueError(f"expected an integer from {low} to {high}, found {_shown(value)}")
    if wanted in (Type.FLOAT, Type.DOUBLE):
        if number or isinstance(value, float):
            return float(value)  # type: ignore[arg-type]
        raise ValueError(f"expected a number, found {_shown(value)}")
    if wanted is Type.BOOLEAN:
        if isinstance(value, bool):
            return value
        raise ValueError(f"expected true or false, found {_shown(value)}")
    if isinstance(value, str):
        return value
    raise ValueError(f"expected text, found {_shown(value)}")


def _shown(value: Value) -> str:
    return "nothing" if value is None else repr(value)[:64]
