"""Reads a plain mapping (from YAML or JSON) into frozen dataclasses and reports every flaw at once.

The types are ordinary dataclasses; bounds and help stand on the field as `msgspec.Meta`. msgspec checks the leaves;
the walk here adds what it does not have: all errors instead of the first, unknown keys refused, and a did-you-mean.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

T = TypeVar("T")
Path = tuple[Union[str, int], ...]


@dataclass(frozen=True)
class Flaw:
    """One thing wrong in the input: where (keys and indices from the root) and what, with what is allowed.

    at_key: the key itself is wrong, not what it leads to.
    """

    path: Path
    message: str
    at_key: bool = False

    @property
    def field(self) -> str:
        """The place as one word, `mqtt.port` or `values[3][0]`."""
        return field_name(self.path)


class Flaws(ValueError):
    """Everything that is wrong with one input."""

    def __init__(self, flaws: list[Flaw]):
        self.flaws = flaws
        super().__init__("; ".join(f"{f.field}: {f.message}" if f.path else f.message for f in flaws))


class Bad(ValueError):
    """Raised by a dataclass's `__post_init__` to blame one of its own fields."""

    def __init__(self, field: str, message: str):
        self.field = field
        super().__init__(message)


class Secret(str):
    """Text that was looked up outside the input: never shown, and read as a number where a number is wanted."""

    def __repr__(self) -> str:
        return "(not shown)"


@dataclass(frozen=True)
class Parsed:
    """Marks a field whose plain form (a string such as `500ms`) is turned into its value by `parse`."""

    parse: Callable[[Any], Any]


def field_name(path: Path) -> str:
    """`("values", 3, 0)` -> `values[3][0]`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part[:64]}" if out else part[:64]
    return out


def read(value: Any, type_: type[T]) -> T:
    """`value` as `type_`, or `Flaws` with every error in it."""
    flaws: list[Flaw] = []
    out = _read(value, type_, (), flaws)
    if flaws:
        raise Flaws(flaws)
    return typing.cast(T, out)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'port'?` where one of the known words is near, else the list of them if it is short."""
    known = sorted(known)
    near = difflib.get_close_matches(str(word)[:64], known, n=1, cutoff=0.6)
    if near:
        return f", did you mean '{near[0]}'?"
    return f"; known here: {', '.join(known)}" if 0 < len(known) <= 20 else ""


DURATION_PATTERN = r"^\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*(ms|s|min|h|d)?\s*$"
_DURATION = re.compile(DURATION_PATTERN)
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def seconds(value: Any) -> float:
    """`500ms`, `1s`, `5min`, `2h`, `7d` or a plain number of seconds -> seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e18:
        return float(value)
    match = _DURATION.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"expected a duration such as 500ms, 1s, 5min, 2h or 7d, found {show(value)}")
    return float(match[1]) * _SECONDS[match[2]]


Duration = Annotated[
    float,
    Parsed(seconds),
    Meta(extra_json_schema={"pattern": DURATION_PATTERN, "examples": ["500ms", "1s"]}),
]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def show(value: Any) -> str:
    """A value for an error message: short, whatever it is."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _until_enough(items: Iterable[T], flaws: list[Flaw]) -> Iterator[T]:
    """The items, until so many of them are wrong that nobody reads on: a request may hold millions."""
    enough = len(flaws) + 50
    for item in items:
        if len(flaws) >= enough:
            return
        yield item


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _read(value: Any, type_: Any, path: Path, flaws: list[Flaw]) -> Any:
    bare, parsed = _strip(type_)
    if parsed is not None:
        try:
            return parsed.parse(value)
        except Flaws as e:
            flaws.extend(Flaw((*path, *f.path), f.message) for f in e.flaws)
            return None
        except ValueError as e:
            flaws.append(Flaw(path, str(e)))
            return None
    origin, args = get_origin(bare), get_args(bare)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        rest = [a for a in args if a is not type(None)]
        if len(rest) == 1 and _needs_walk(rest[0]):
            return _read(value, rest[0], path, flaws)
    if dataclasses.is_dataclass(bare):
        return _read_dataclass(value, typing.cast(type, bare), path, flaws)
    if origin is dict and _needs_walk(args[1]):
        if not isinstance(value, Mapping):
            flaws.append(Flaw(path, f"expected a mapping of names, found {show(value)}"))
            return None
        if args[0] is not str:
            for k in _until_enough(value, flaws):
                _leaf(str(k), args[0], (*path, str(k)), flaws, at_key=True)
        return {str(k): _read(v, args[1], (*path, str(k)), flaws) for k, v in _until_enough(value.items(), flaws)}
    if origin in (list, tuple) and args and _needs_walk(args[0]):
        if not isinstance(value, (list, tuple)):
            flaws.append(Flaw(path, f"expected a list, found {show(value)}"))
            return None
        items = [_read(v, args[0], (*path, i), flaws) for i, v in _until_enough(enumerate(value), flaws)]
        return tuple(items) if origin is tuple else items
    return _leaf(value, type_, path, flaws)


def _read_dataclass(value: Any, cls: type, path: Path, flaws: list[Flaw]) -> Any:
    if not isinstance(value, Mapping):
        flaws.append(Flaw(path, f"expected a mapping with {_keys(cls)}, found {show(value)}"))
        return None
    fields = {f.name: f for f in dataclasses.fields(cls)}
    before = len(flaws)
    for key in _until_enough(value, flaws):
        if key not in fields:
            flaws.append(Flaw((*path, str(key)), f"unknown field '{str(key)[:64]}'{did_you_mean(key, fields)}", at_key=True))
    given: dict[str, Any] = {}
    for name, f in fields.items():
        if name in value:
            given[name] = _read(value[name], _hints(cls)[name], (*path, name), flaws)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            flaws.append(Flaw((*path, name), f"required field '{name}' is missing"))
    if len(flaws) > before:
        return None
    try:
        return cls(**given)
    except Bad as e:
        flaws.append(Flaw((*path, *e.field.split(".")) if e.field else path, str(e)))
    except ValueError as e:
        flaws.append(Flaw(path, str(e)))
    return None


def _leaf(value: Any, type_: Any, path: Path, flaws: list[Flaw], at_key: bool = False) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        flaws.append(Flaw(path, f"expected a finite number, found {value}", at_key))
        return None
    try:
        out = msgspec.convert(value, type_, strict=not isinstance(value, Secret))
        if isinstance(out, str) and out.endswith("\n") and any(m.pattern for m in _metas(type_)):
            raise msgspec.ValidationError("Expected `str` matching regex without a line break")  # `$` lets one pass
        return out
    except msgspec.ValidationError as e:
        if not _blame_items(value, type_, path, flaws):
            flaws.append(Flaw(path, _in_words(str(e), value, type_), at_key))
        return None


def _blame_items(value: Any, type_: Any, path: Path, flaws: list[Flaw]) -> bool:
    """Whether a list or mapping is wrong in its items; msgspec names the first one only, and no key of a mapping."""
    bare, args = _strip(type_)[0], get_args(_strip(type_)[0])
    if get_origin(bare) in (Union, types.UnionType):
        bare = next((a for a in (_strip(a)[0] for a in args) if get_origin(a) in (list, tuple, dict)), bare)
        args = get_args(bare)
    before = len(flaws)
    if get_origin(bare) is dict and isinstance(value, Mapping):
        for k, v in _until_enough(value.items(), flaws):
            _read(v, args[1], (*path, str(k)), flaws)
    elif get_origin(bare) in (list, tuple) and isinstance(value, (list, tuple)) and (len(args) == 1 or args[-1] is ...):
        for i, v in _until_enough(enumerate(value), flaws):
            _read(v, args[0], (*path, i), flaws)
    elif get_origin(bare) is tuple and isinstance(value, (list, tuple)) and len(args) == len(value):
        for i, (v, arg) in enumerate(zip(value, args)):
            _read(v, arg, (*path, i), flaws)
    return len(flaws) > before


_EXPECTED = re.compile(r"Expected (.+?)(, got .+)?$", re.DOTALL)
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "null": "null"}
_WORDS |= {"array": "a list", "object": "a mapping"}


def _in_words(text: str, value: Any, type_: Any) -> str:
    """msgspec's message as a technician would put it, with what was found."""
    allowed = _literals(type_)
    if text.startswith("Invalid enum value"):
        one = list({str(a): repr(a) for a in allowed}.values())
        return f"expected {'one of ' if len(one) > 1 else ''}{', '.join(one)}, found {show(value)}{_near(value, allowed)}"
    if "matching regex" in text and (words := _expected_words(type_)):
        return f"expected {words}, found {show(value)}"
    text = text.split(" - at `")[0]
    match = _EXPECTED.match(text)
    if not match:
        return f"{text[0].lower()}{text[1:]}, found {show(value)}"
    words = re.sub(r"`([^`]+)`", lambda m: " or ".join(_WORDS.get(w, w) for w in m[1].split(" | ")), match[1])
    if allowed and " or " in words:
        words = words.replace("text", " or ".join(map(repr, allowed)))
    quote = "; put it in quotes" if match[1] in ("`str`", "`str | null`") and isinstance(value, (int, float)) else ""
    return f"expected {words}, found {show(value)}{quote}"


def _literals(type_: Any) -> list[Any]:
    """The values that a type lists, however deep in a union they stand."""
    bare, _ = _strip(type_)
    if get_origin(bare) is Literal:
        return list(get_args(bare))
    return [v for a in get_args(bare) for v in _literals(a)]


def _near(value: Any, allowed: list[Any]) -> str:
    near = difflib.get_close_matches(value[:64], [str(a) for a in allowed], n=1) if isinstance(value, str) else []
    return f", did you mean '{near[0]}'?" if near else ""


def _expected_words(type_: Any) -> str | None:
    """What a pattern asks for in words: `Meta(extra={"expected": ...})`."""
    return next((str(m.extra["expected"]) for m in _metas(type_) if m.extra and "expected" in m.extra), None)


@functools.cache
def _metas(type_: Any) -> tuple[Meta, ...]:
    """Every `Meta` on a type and on those inside it."""
    own = type_.__metadata__ if get_origin(type_) is Annotated else ()
    below = (m for a in get_args(_strip(type_)[0]) for m in _metas(a))
    return (*(m for m in own if isinstance(m, Meta)), *below)


def _strip(type_: Any) -> tuple[Any, Parsed | None]:
    """The type under `Annotated`, and its `Parsed` mark where it has one."""
    if get_origin(type_) is Annotated:
        mark = next((m for m in type_.__metadata__ if isinstance(m, Parsed)), None)
        return type_.__origin__, mark
    return type_, None


@functools.cache
def _needs_walk(type_: Any) -> bool:
    """Whether the walk has to go into this type itself: a dataclass, a `Parsed` mark or a pattern somewhere inside."""
    bare, parsed = _strip(type_)
    pattern = any(m.pattern for m in _metas(type_))
    return parsed is not None or dataclasses.is_dataclass(bare) or pattern or any(map(_needs_walk, get_args(bare)))


def _keys(cls: type) -> str:
    return ", ".join(f.name for f in dataclasses.fields(cls))
