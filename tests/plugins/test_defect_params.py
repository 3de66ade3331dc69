import base64

import pytest
from denoised.config import typed
from denoised.config.refusal import Refusal
from denoised.plugins.defect_synthesis.kind import KIND
from denoised.plugins.defect_synthesis.params import Params, Region
from denoised.plugins.kind import Site

DATA = base64.b64encode(b"picture").decode()


def flaws(params):
    with pytest.raises(typed.Flaws) as caught:
        typed.read(params, Params)
    return {f.field: f.message for f in caught.value.flaws}


def test_the_smallest_request_takes_the_defaults():
    params = typed.read({"image": {"path": "a.png"}}, Params)
    assert (params.defect, params.count, params.severity, params.region) == ("any", 1, None, Region())


def test_a_full_request_is_read():
    params = typed.read(
        {
            "model": "m", "image": {"camera": "line1"}, "defect": "crack", "count": 1000, "severity": 0,
            "region": {"polygon": [[0, 0], [10, 0.5], [5, 9]]},
        },
        Params,
    )  # fmt: skip
    assert params.region.polygon == ((0, 0), (10, 0.5), (5, 9)) and params.severity == 0


@pytest.mark.parametrize(
    ("given", "read"), [({}, "on"), ({"gate": "strict"}, "strict"), ({"gate": False}, "off"), ({"gate": True}, "on")]
)
def test_the_gate_is_on_unless_told_otherwise_and_a_bare_off_of_yaml_is_understood(given, read):
    assert typed.read({"image": {"path": "a.png"}, **given}, Params).gate == read


@pytest.mark.parametrize(
    "image", [{}, {"path": "a", "data": DATA}, {"path": None, "camera": None}, {"path": "a", "data": DATA, "camera": "c"}]
)
def test_exactly_one_source_of_the_image_is_wanted(image):
    assert "exactly one of path, data, camera" in flaws({"image": image})["image"]


@pytest.mark.parametrize(
    "params, field",
    [
        ({}, "image"),
        ({"image": "a.png"}, "image"),
        ({"image": {"path": ""}}, "image.path"),
        ({"image": {"path": 5}}, "image.path"),
        ({"image": {"data": "no base64!"}}, "image.data"),
        ({"image": {"data": "QUJ"}}, "image.data"),
        ({"image": {"file": "a.png"}}, "image.file"),
        ({"image": {"path": "a"}, "count": 0}, "count"),
        ({"image": {"path": "a"}, "count": 1001}, "count"),
        ({"image": {"path": "a"}, "count": 1.5}, "count"),
        ({"image": {"path": "a"}, "count": True}, "count"),
        ({"image": {"path": "a"}, "severity": 1.01}, "severity"),
        ({"image": {"path": "a"}, "severity": float("nan")}, "severity"),
        ({"image": {"path": "a"}, "severity": "high"}, "severity"),
        ({"image": {"path": "a"}, "gate": "loose"}, "gate"),
        ({"image": {"path": "a"}, "gate": 1}, "gate"),
        ({"image": {"path": "a"}, "defect": ""}, "defect"),
        ({"image": {"path": "a"}, "defect": 3}, "defect"),
        ({"image": {"path": "a"}, "sverity": 1}, "sverity"),
        ({"image": {"path": "a"}, "region": "everywhere"}, "region"),
        ({"image": {"path": "a"}, "region": {}}, "region"),
        ({"image": {"path": "a"}, "region": {"box": [0, 0, 9, 9], "polygon": [[0, 0], [9, 0], [0, 9]]}}, "region"),
        ({"image": {"path": "a"}, "region": {"box": [0, 0, 9]}}, "region.box"),
        ({"image": {"path": "a"}, "region": {"box": [0, 0, 9, 0]}}, "region.box"),
        ({"image": {"path": "a"}, "region": {"box": [0, 0, -9, 9]}}, "region.box"),
        ({"image": {"path": "a"}, "region": {"box": [-1, 0, 9, 9]}}, "region.box"),
        ({"image": {"path": "a"}, "region": {"box": [0, 0, 10**9, 9]}}, "region.box"),
        ({"image": {"path": "a"}, "region": {"polygon": [[0, 0], [9, 9]]}}, "region.polygon"),
        ({"image": {"path": "a"}, "region": {"polygon": [[0, 0], [5, 5], [9, 9]]}}, "region.polygon"),
        ({"image": {"path": "a"}, "region": {"polygon": [[0, 0], [float("inf"), 5], [9, 9]]}}, "region.polygon"),
        ({"image": {"path": "a"}, "region": {"polygon": [[0, 0], [1e300, 5], [9, 9]]}}, "region.polygon"),
        ({"image": {"path": "a"}, "region": {"mask": {}}}, "region.mask"),
        ({"image": {"path": "a"}, "region": {"mask": {"data": "%%"}}}, "region.mask.data"),
        ({"image": {"path": "a"}, "region": {"circle": 3}}, "region.circle"),
    ],
)
def test_a_bad_field_is_named(params, field):
    assert field in flaws(params)


def test_every_flaw_of_a_request_is_reported_at_once():
    found = flaws({"image": {"path": ""}, "count": 0, "region": {"box": [0, 0, 0, 0]}})
    assert set(found) == {"image.path", "count", "region.box"}


def refusal(params, site):
    with pytest.raises(Refusal) as caught:
        KIND.check(typed.read(params, Params), site)
    return caught.value


@pytest.fixture
def site(tmp_path, defect_bundle):
    (tmp_path / "good.png").write_bytes(b"looked at later")
    return Site((tmp_path,), frozenset({"line1"}), {"defect-synthesis": (defect_bundle,)})


def test_a_misspelt_class_is_refused_with_the_near_one(site):
    refused = refusal({"image": {"path": "good.png"}, "defect": "blowhle"}, site)
    assert (refused.code, refused.field) == ("bad-request", "params.defect")
    assert "did you mean 'blowhole'" in refused.message


@pytest.mark.parametrize(
    "params, code, field",
    [
        ({"image": {"path": "good.png"}, "model": "other"}, "unknown-model", "params.model"),
        ({"image": {"camera": "line2"}}, "unknown-input", "params.image.camera"),
        ({"image": {"path": "none.png"}}, "unknown-input", "params.image.path"),
        ({"image": {"path": "../../etc/passwd"}}, "unknown-input", "params.image.path"),
        ({"image": {"path": "/etc/passwd"}}, "unknown-input", "params.image.path"),
        ({"image": {"path": "a\0b"}}, "unknown-input", "params.image.path"),
        ({"image": {"path": "good.png"}, "region": {"mask": {"path": "none.png"}}}, "unknown-input", "params.region.mask.path"),
    ],
)
def test_what_is_not_here_is_refused_before_any_work(site, params, code, field):
    refused = refusal(params, site)
    assert (refused.code, refused.field) == (code, field)


def test_an_accepted_request_says_how_many_items_and_which_camera(site):
    params = typed.read({"image": {"camera": "line1"}, "count": 7}, Params)
    assert KIND.check(params, site) == 7 and KIND.camera(params) == "line1"
