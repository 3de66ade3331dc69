"""What a configuration must get right beyond its own tree: triggers name kinds, params and cameras that there are.

Given to `config.load.load` by `denoised check` and `denoised run` alike; a typo in a trigger's params is found here and
not by the first trigger of the night shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...config import typed
from ...config.typed import Flaw, did_you_mean
from .triggers import matches


def check_config(plain: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[Flaw]:
    """The flaws of the merged mapping, which may have any shape: what the tree refuses anyway is passed over.

    kinds: every installed `JobKind` by name.
    """
    triggers, cameras = plain.get("triggers"), plain.get("cameras", {})
    flaws: list[Flaw] = []
    for name, trigger in triggers.items() if isinstance(triggers, dict) else ():
        if not isinstance(trigger, dict) or not isinstance(trigger.get("kind"), str):
            continue
        at: typed.Path = ("triggers", name)
        answer = trigger["reply"].get("topic") if isinstance(trigger.get("reply"), dict) else None
        if isinstance(answer, str) and isinstance(trigger.get("topic"), str) and matches(trigger["topic"], answer):
            flaws.append(Flaw((*at, "reply", "topic"), f"the reply would fire the trigger itself ({trigger['topic']})"))
        kind, params = kinds.get(trigger["kind"]), trigger.get("params", {})
        if kind is None:
            hint = did_you_mean(trigger["kind"], kinds)
            flaws.append(Flaw((*at, "kind"), f"no job kind '{trigger['kind'][:64]}' is installed{hint}"))
        elif isinstance(params, dict):
            flaws += [_below((*at, "params"), f) for f in _params_flaws(params, kind)]
            if isinstance(cameras, dict):
                flaws += [_below((*at, "params"), f) for f in _camera_flaws(params, kind, cameras)]
    return flaws


def _params_flaws(params: dict[str, Any], kind: Any) -> list[Flaw]:
    """What the kind's own params refuse, but for the values that only the payload will bring."""
    later = list(_from_payload(params, ()))
    flaws = _read(params, kind)[1]
    return [f for f in flaws if f.at_key or not any(_touch(f.path, path) for path in later)]


def _camera_flaws(params: dict[str, Any], kind: Any, cameras: Mapping[str, Any]) -> list[Flaw]:
    """A camera that the config does not have, if the params name one without the payload's help."""
    known = _without(params, set(_from_payload(params, ())), ())
    read, flaws = _read(known, kind)
    camera = None if flaws else kind.camera(read)
    if camera is None or camera in cameras:
        return []
    path = next((p for p, value in _leaves(params, ()) if value == camera), ())
    return [Flaw(path, f"no camera '{camera}' under 'cameras:'{did_you_mean(camera, cameras)}")]


def _read(params: Any, kind: Any) -> tuple[Any, list[Flaw]]:
    try:
        return typed.read(params, kind.params), []
    except typed.Flaws as e:
        return None, e.flaws


def _leaves(value: Any, path: typed.Path) -> Iterator[tuple[typed.Path, Any]]:
    if isinstance(value, (dict, list)):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(below, (*path, key))
    else:
        yield path, value


def _from_payload(params: Any, path: typed.Path) -> Iterator[typed.Path]:
    """Paths of the values `$.field`, which `core/triggers.py` takes from the payload."""
    return (p for p, value in _leaves(params, path) if isinstance(value, str) and value.startswith("$."))


def _without(value: Any, gone: set[typed.Path], path: typed.Path) -> Any:
    """The mapping without these paths; a list that holds one is left out whole, as its length would change."""
    if not isinstance(value, dict):
        return value
    lists = {p[:i] for p in gone for i, part in enumerate(p) if isinstance(part, int)}
    return {k: _without(v, gone, (*path, k)) for k, v in value.items() if (*path, k) not in gone | lists}


def _touch(one: typed.Path, other: typed.Path) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _below(path: typed.Path, flaw: Flaw) -> Flaw:
    return Flaw((*path, *flaw.path), flaw.message, flaw.at_key)
