"""Triggers against the kinds and cameras that there are. A small kind of our own stands for anyone's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from denoised.config.typed import Bad, Flaw, field_name
from denoised.daemon.core.check import check_config
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta


@dataclass(frozen=True)
class Picture:
    path: str | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.camera is None):
            raise Bad("", "expected one of path, camera")


@dataclass(frozen=True)
class Params:
    image: Picture
    defect: Literal["any", "hole"] = "any"
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    box: tuple[int, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)


class Kind:
    name = "paint"
    params = Params

    def camera(self, params: Any) -> str | None:
        name: str | None = params.image.camera
        return name


KINDS = {"paint": Kind()}


def flaws(params: Any, kind: Any = "paint", cameras: Any = None) -> dict[str, str]:
    plain = {"cameras": {"line1": {}} if cameras is None else cameras, "triggers": {"t": {"kind": kind, "params": params}}}
    return {field_name(f.path): f.message for f in check_config(plain, KINDS)}


def test_good_triggers_have_no_flaws() -> None:
    assert flaws({"image": {"camera": "line1"}, "count": 2}) == {}
    assert flaws({"image": {"path": "a.png"}}) == {}


def test_an_unknown_kind_is_named_with_the_near_one() -> None:
    assert flaws({}, "piant") == {"triggers.t.kind": "no job kind 'piant' is installed, did you mean 'paint'?"}


def test_a_typo_in_params_is_found_at_its_place() -> None:
    assert flaws({"image": {"pth": "a"}, "count": 10, "defetc": "hole"}) == {
        "triggers.t.params.image.pth": "unknown field 'pth', did you mean 'path'?",
        "triggers.t.params.count": "expected a whole number <= 9, found 10",
        "triggers.t.params.defetc": "unknown field 'defetc', did you mean 'defect'?",
    }


def test_params_may_be_left_out_only_where_the_kind_needs_none() -> None:
    plain = {"triggers": {"t": {"kind": "paint"}}}
    assert check_config(plain, KINDS) == [Flaw(("triggers", "t", "params", "image"), "required field 'image' is missing")]


def test_a_camera_that_is_not_there_is_found_at_its_place() -> None:
    message = "no camera 'lien1' under 'cameras:', did you mean 'line1'?"
    assert flaws({"image": {"camera": "lien1"}}) == {"triggers.t.params.image.camera": message}


@pytest.mark.parametrize(
    "params",
    [
        {"image": {"camera": "line1"}, "defect": "$.part.defect", "count": "$.n"},
        {"image": {"camera": "$.camera"}},
        {"image": "$.image", "box": [1, "$.y", 3]},
        {"image": {"path": "$.file"}, "notes": {"who": "$.user"}},
    ],
)
def test_values_that_the_payload_will_bring_are_not_judged(params: Any) -> None:
    assert flaws(params) == {}


@pytest.mark.parametrize(
    ("params", "place"),
    [
        ({"image": {"camera": "lien1"}, "defect": "$.d"}, "image.camera"),
        ({"image": {"camera": "line1"}, "defect": "$.d", "count": 0}, "count"),
        ({"image": {"camera": "line1"}, "defetc": "$.d"}, "defetc"),
        ({"image": {"camera": "line1"}, "box": [1, "$.y"], "count": "x"}, "count"),
        ({"count": "$.n"}, "image"),
    ],
)
def test_what_stands_beside_them_is_judged(params: Any, place: str) -> None:
    assert list(flaws(params)) == [f"triggers.t.params.{place}"]


def test_what_the_tree_refuses_anyway_is_passed_over() -> None:
    plain: dict[str, Any]
    for plain in ({}, {"triggers": None}, {"triggers": []}, {"triggers": {"t": 1}}, {"triggers": {"t": {"kind": 1}}}):
        assert check_config(plain, KINDS) == []
    assert flaws([]) == {} and flaws({"image": {"camera": "x"}}, cameras=[]) == {}


keys = st.sampled_from(["triggers", "cameras", "t", "kind", "params", "image", "camera", "path", "count", "box"])
scalars = st.none() | st.integers() | st.sampled_from(["paint", "line1", "$.x", "a"])
plains = st.recursive(
    scalars, lambda below: st.lists(below, max_size=2) | st.dictionaries(keys, below, max_size=4), max_leaves=12
)


@given(plains, plains, plains)
def test_any_shape_is_taken(params: Any, trigger: Any, cameras: Any) -> None:
    triggers = {"a": {"kind": "paint", "params": params}, "b": trigger}
    assert all(f.message for f in check_config({"triggers": triggers, "cameras": cameras}, KINDS))
