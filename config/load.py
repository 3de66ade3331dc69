"""YAML and conf.d in, a `Config` out - or every error at once, each with the place where it stands.

`<folder of FILE>/conf.d/*.yaml` are merged over FILE in name order: mappings merge deeply, anything else replaces.
Text that a file should not hold itself is named by `!env NAME` or `!file PATH`; its value is never shown in an error.
Paths in the tree and behind `!file` count from the folder of the file that they stand in.
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from . import typed
from .document import Node, read_document
from .error import ConfigError, Error, Place
from .fields import DOT_PATH, PATH
from .tree import Config
from .typed import Flaw, Secret

Check = Callable[[Mapping[str, Any]], Iterable[Flaw]]


def load(path: Path, check: Check | None = None) -> Config:
    """The configuration in `path` and its conf.d, or `ConfigError`.

    check: what the tree alone cannot know, as flaws of the merged plain mapping; it is asked even where other parts of
    the mapping are wrong, so that its errors come at the same time, and must take any shape of value for granted.
    """
    errors: list[Error] = []
    files = config_files(path, errors)
    documents = [read_document(file, errors) for file in files]
    roots = [d for d in documents if d is not None]
    if len(roots) < len(files):  # what the rest lacks may stand in the file that cannot be read
        raise ConfigError(errors)
    root = roots[0]
    for over in roots[1:]:
        root = _merge(root, over)
    plain = _plain(root, Config)
    config: Config | None = None
    flaws: list[Flaw] = []
    try:
        config = typed.read(plain, Config)
    except typed.Flaws as e:
        flaws += e.flaws
    if check:
        flaws += check(plain)
    blamed = {e.place for e in errors}  # a reference that has no value is one error, not two
    hide = _hide(root)
    errors += [Error(place, hide(f.message)) for f in flaws if (place := _place(root, f)) not in blamed]
    if config is None or errors:
        order = {str(file): i for i, file in enumerate(files)}
        raise ConfigError(sorted(errors, key=lambda e: (order.get(e.place.file, 0), e.place.line, e.place.column)))
    return config


def config_files(path: Path, errors: list[Error] | None = None) -> list[Path]:
    """The files that make up the configuration, in the order in which they are merged."""
    folder = path.parent / "conf.d"
    try:
        names = sorted(n for n in os.listdir(folder) if n.endswith(".yaml") and not n.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except (OSError, ValueError) as e:
        names = []
        if errors is not None:
            errors.append(Error(Place(str(folder)), f"cannot read this folder: {getattr(e, 'strerror', None) or e}"))
    return [path, *(folder / n for n in names)]


def _merge(base: Node, over: Node) -> Node:
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = _merge(merged[key], node) if key in merged else node
    return dataclasses.replace(over, value=merged)


def _plain(node: Node, type_: Any) -> Any:
    """The value without its places; what only a file has is settled here: empty sections, and paths beside the file."""
    metas, type_, optional = _bare(type_)
    is_section = dataclasses.is_dataclass(type_) or get_origin(type_) is dict
    if node.value is None and is_section and not optional:
        return {}  # `mqtt:` with every line under it commented out
    if isinstance(node.value, dict):
        if dataclasses.is_dataclass(type_):
            hints = typing.get_type_hints(type_, include_extras=True)
            return {k: _plain(v, hints.get(k, Any)) for k, v in node.value.items()}
        below = get_args(type_)[1] if get_origin(type_) is dict else Any
        return {k: _plain(v, below) for k, v in node.value.items()}
    if isinstance(node.value, list):
        below = get_args(type_)[0] if get_origin(type_) in (list, tuple) else Any
        return [_plain(v, below) for v in node.value]
    is_path = PATH in metas or (DOT_PATH in metas and str(node.value).startswith(("./", "../")))
    if is_path and isinstance(node.value, str) and node.value:
        value = os.path.join(os.path.dirname(os.path.abspath(node.place.file)), node.value)
        return Secret(value) if isinstance(node.value, Secret) else value
    return node.value


def _bare(type_: Any) -> tuple[tuple[Any, ...], Any, bool]:
    """Marks, the type under them, and whether it may be None."""
    metas: tuple[Any, ...] = ()
    if get_origin(type_) is typing.Annotated:
        metas, type_ = type_.__metadata__, type_.__origin__
    if get_origin(type_) in (Union, types.UnionType) and type(None) in get_args(type_):
        inner = [a for a in get_args(type_) if a is not type(None)]
        if len(inner) == 1:
            below, type_, _ = _bare(inner[0])
            return metas + below, type_, True
    return metas, type_, False


def _place(root: Node, flaw: Flaw) -> Place:
    """Where the flawed key or value stands; what is missing is shown at what it is missing from."""
    node = root
    for part in flaw.path:
        below = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
        if not isinstance(below, dict) or part not in below:
            return node.blame
        node = below[part]
    return node.key if flaw.at_key and node.key else node.blame


def _hide(root: Node) -> Callable[[str], str]:
    """Takes referenced values out of a message; `Secret` hides itself where it is shown, this finds the rest."""
    found: set[str] = set()
    todo = [root]
    while todo:
        value = todo.pop().value
        if isinstance(value, Secret):
            found |= {str(value), str(value).strip()}
        elif isinstance(value, (dict, list)):
            todo += value.values() if isinstance(value, dict) else value
    if not found - {""}:
        return lambda message: message
    words = "|".join(re.escape(v) for v in sorted(found - {""}, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")
    return lambda message: pattern.sub("(not shown)", message)
