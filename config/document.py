"""One YAML file as nodes that know where they stand. Knows nothing of what the keys mean.

PyYAML's parser gives the events; the values are made here, because its own composer and constructor recurse without
limit, expand aliases without limit, take the last of two equal keys, and read `no`, `010` and `12:30` as false, 8 and
750. Plain scalars follow the core schema of YAML 1.2, as editors do: null, true, false, numbers; anything else is text.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from .error import Error, Place
from .typed import Secret

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_VALUES = 100_000
"""Limits no configuration comes near: bytes of a file, levels of nesting, values once aliases are expanded."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_CONSTANTS = {word: value for value, words in {
    None: ("", "~", "null", "Null", "NULL"), True: ("true", "True", "TRUE"), False: ("false", "False", "FALSE"),
}.items() for word in words}  # fmt: skip
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Node:
    """A value and where it stands; `key` is where the key stands that leads to it.

    size, height: the values and levels in it, itself included, aliases expanded.
    """

    value: Any  # dict[str, Node], list[Node] or a scalar
    place: Place
    key: Place | None = None
    size: int = 1
    height: int = 1

    @property
    def blame(self) -> Place:
        """The place to show for this value: of something that goes on over lines, its key."""
        return self.key if self.key and isinstance(self.value, (dict, list)) else self.place


def read_document(file: Path, errors: list[Error]) -> Node | None:
    """The top mapping of a file, or None where it has none that can be read. What is wrong is added to `errors`."""
    nowhere = Place(str(file))
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        errors.append(Error(nowhere, f"cannot read this file: {getattr(e, 'strerror', None) or e}"))
        return None
    if len(raw) > MAX_BYTES:
        errors.append(Error(nowhere, f"this file is larger than {MAX_BYTES >> 20} MiB: surely not a configuration"))
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        good = raw[: e.start].decode("utf-8-sig")
        line, column = good.count("\n") + 1, len(good) - good.rfind("\n")
        message = f"byte 0x{raw[e.start]:02x} is not UTF-8; save the file as UTF-8"
        errors.append(Error(Place(str(file), line, column, good.split("\n")[-1]), message))
        return None
    try:
        return _Composer(file, text, errors).document()
    except _Stop:
        return None


class _Stop(Exception):
    """The rest of this file cannot be read; why stands in the errors."""


class _Composer:
    """Events in, nodes out."""

    def __init__(self, file: Path, text: str, errors: list[Error]):
        self.file, self.text, self.errors = file, text, errors
        self.lines = _LINE_BREAK.split(text)
        self.anchors: dict[str, Node] = {}
        self.events: Iterator[Any] = yaml.parse(text, _LOADER)
        self.references: dict[str, Callable[[str], str]] = {"!env": self._env, "!file": self._file}

    def document(self) -> Node | None:
        if bad := _UNPRINTABLE.search(self.text):
            before = _LINE_BREAK.split(self.text[: bad.start()])
            place = self._at(len(before) - 1, len(before[-1]))
            self._stop(place, f"character U+{ord(bad[0]):04X} is not allowed in YAML; write it as an escape in double quotes")
        try:
            root = self._root()
        except yaml.MarkedYAMLError as e:
            at_end = e.problem_mark is None or not "".join(self.lines[e.problem_mark.line :])[e.problem_mark.column :].strip()
            mark = (
                e.context_mark if at_end and e.context_mark else e.problem_mark
            )  # what is never closed is blamed where it opens
            place = self._at(mark.line, mark.column) if mark else Place(str(self.file))
            if "nesting depth" in str(e.problem):  # libyaml has a limit of its own since PyYAML 6.0.4
                self._stop(place, f"nested more than {MAX_DEPTH} levels deep")
            self._stop(place, f"not YAML: {_reason(e, place)}")
        except (yaml.YAMLError, ValueError) as e:  # the reader's own errors; a "\ud800" that is no character
            self._stop(Place(str(self.file)), f"not YAML: {' '.join(str(e).split())}")
        if root is None or root.value is None:
            return Node({}, Place(str(self.file)))
        if not isinstance(root.value, dict):
            kind = "a list" if isinstance(root.value, list) else "a single value"
            self._stop(root.place, f"expected sections such as 'mqtt:' at the top of the file, found {kind}")
        return root

    def _root(self) -> Node | None:
        root = None
        for event in self.events:
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, 0)
            elif isinstance(event, yaml.DocumentStartEvent) and root is not None:
                self._stop(self._place(event), "a second document ('---') begins here; a configuration is one")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        place = self._place(event)
        if depth > MAX_DEPTH:
            self._stop(place, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self._error(place, f"alias '*{event.anchor}' stands before or inside the '&{event.anchor}' that it names")
            return self.anchors.get(str(event.anchor), Node(None, place))
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event, place), place)
        else:
            plain_tags = (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
            if event.tag not in plain_tags:
                known = event.tag in self.references
                self._error(place, f"{event.tag} stands before a single value" if known else _unknown_tag(event.tag))
            compose = self._mapping if isinstance(event, yaml.MappingStartEvent) else self._sequence
            node = compose(place, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _sequence(self, place: Place, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return self._sized(items, items, place)

    def _mapping(self, place: Place, depth: int) -> Node:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._place(event)
            name = self._key(event, depth)
            node = self._node(next(self.events), depth + 1)
            if name == "<<" and event.implicit[0]:
                merged = {**self._merged(node), **merged}
            elif name in own:
                first = own[name].key
                self._error(key, f"'{name}' stands here a second time; first in line {first.line if first else '?'}")
            elif name is not None:
                own[name] = dataclasses.replace(node, key=key)
        entries = {**merged, **own}
        return self._sized(entries, list(entries.values()), place)

    def _key(self, event: Any, depth: int) -> str | None:
        """A key as it is written, so that `no:`, `5:` and `on:` are names like any other."""
        if isinstance(event, yaml.ScalarEvent) and event.tag not in self.references:
            return str(event.value)
        self._error(self._place(event), "a key must be plain text")
        if isinstance(event, yaml.CollectionStartEvent):
            self._node(event, depth + 1)
        return None

    def _merged(self, node: Node) -> dict[str, Node]:
        """What `<<: *anchor` or `<<: [*first, *second]` brings; the first of two wins."""
        entries: dict[str, Node] = {}
        for part in node.value if isinstance(node.value, list) else [node]:
            if isinstance(part.value, dict):
                entries = {**part.value, **entries}
            else:
                self._error(part.place, "'<<' takes a mapping or a list of mappings, such as *anchor")
        return entries

    def _sized(self, value: Any, parts: list[Node], place: Place) -> Node:
        size = 1 + sum(p.size for p in parts)
        height = 1 + max((p.height for p in parts), default=0)
        if size > MAX_VALUES or height > MAX_DEPTH:
            limit = f"{MAX_VALUES} values" if size > MAX_VALUES else f"{MAX_DEPTH} levels"
            self._stop(place, f"more than {limit} here once aliases are expanded")
        return Node(value, place, None, size, height)

    def _scalar(self, event: Any, place: Place) -> Any:
        text = str(event.value)
        look_up = self.references.get(event.tag or "")
        if look_up:
            try:
                return Secret(look_up(text))
            except ValueError as e:
                self._error(place, str(e))
                return Secret("")
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            self._error(place, _unknown_tag(event.tag))
        if event.tag is not None or not event.implicit[0]:
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INT.fullmatch(text):
            if len(text) <= 18:
                return int(text, 0 if text[:2] in ("0o", "0x") else 10)
        elif not _FLOAT.fullmatch(text):
            return text
        elif math.isfinite(number := float(text)):
            return number
        self._error(place, "this number is too large; if it is a name, put it in quotes")
        return 0

    def _env(self, name: str) -> str:
        if not name:
            raise ValueError("!env needs the name of an environment variable, such as !env LINE1_URL")
        value = os.environ.get(name)
        if value is None:
            raise ValueError(f"environment variable {name} is not set")
        return _sound(value.encode("utf-8", "surrogateescape"), f"environment variable {name}")

    def _file(self, name: str) -> str:
        if not name:
            raise ValueError("!file needs the path of a file, such as !file /etc/denoised/keys/line1.url")
        path = self.file.parent / name
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as e:
            raise ValueError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
        return _sound(raw, str(path)).rstrip("\r\n")

    def _at(self, line: int, column: int) -> Place:
        if line >= len(self.lines):  # the end of a text without a last line break
            line, column = len(self.lines) - 1, len(self.lines[-1])
        return Place(str(self.file), line + 1, column + 1, self.lines[line])

    def _place(self, event: Any) -> Place:
        return self._at(event.start_mark.line, event.start_mark.column)

    def _error(self, place: Place, message: str) -> None:
        self.errors.append(Error(place, message))

    def _stop(self, place: Place, message: str) -> NoReturn:
        self._error(place, message)
        raise _Stop


def _sound(raw: bytes, what: str) -> str:
    """The text of a reference; says what is wrong with it without showing it."""
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{what} is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{what} does not hold UTF-8 text") from None
    if not text.strip():
        raise ValueError(f"{what} is empty")
    return text


def _unknown_tag(tag: str) -> str:
    tag = tag.replace("tag:yaml.org,2002:", "!!")
    return f"tag '{tag}' is not known here; known: !env NAME, !file PATH"


def _reason(e: yaml.MarkedYAMLError, place: Place) -> str:
    """PyYAML's words, and what to do about the two slips that they do not explain."""
    reason = ", ".join(filter(None, (e.context, e.problem)))
    here = place.text[place.column - 1 : place.column]
    if here == "\t":
        return f"{reason}; indent with spaces, not tabs"
    if here and here in "@`%":
        return f"{reason}; put text that begins with {here} in quotes"
    if "mapping values are not allowed" in reason:
        return f"{reason}; is the line above indented differently, or is there text with ': ' that needs quotes?"
    return reason
