import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from denoised.config import typed
from denoised.config.refusal import Refusal
from denoised.demo import surface
from denoised.engines.bundle import SHIPPED, OperatingPoint, read_bundle, write_sums
from denoised.plugins.defect_synthesis.gate import read_reference
from denoised.plugins.defect_synthesis.kind import KIND
from denoised.plugins.kind import Site, Task
from denoised.plugins.play import drive, play, solve, trajectory
from denoised.plugins.provenance import read_text


class Job:
    """Plays jobs on a 320 x 240 picture of a part in the folder `inputs`."""

    def __init__(self, folder, bundle, engine):
        self._folder, self._bundle, self._engine, self._count = folder, bundle, engine, 0
        self.inputs = folder / "inputs"
        self.inputs.mkdir()
        cv2.imwrite(str(self.inputs / "good.png"), surface.frame(0, 0, 320, 240))

    def __call__(self, params, seed=7, point=None, bundle=None, engine=None, image=None, max_pixels=10**6, frame=None):
        """(outcome, folder); `image`: the bytes of another picture."""
        self._count += 1
        folder = self._folder / f"job{self._count}"
        folder.mkdir()
        if image is not None:
            (self.inputs / "image.png").write_bytes(image)
            params = {"image": {"path": "image.png"}, **params}
        bundle, engine = bundle or self._bundle, engine or self._engine
        site = Site((self.inputs,), frozenset({"line1"}), {"defect-synthesis": (bundle,)}, max_pixels)
        origin = {"gateway": "gw", "job": "j1", "model": "toy-defects"}
        point = point or bundle.manifest.operating_points[0]
        network = engine.__getitem__ if isinstance(engine, dict) else lambda name: engine
        self.task = Task("j1", seed, folder, bundle, point, network, site, frame, origin)
        return play(KIND, {"image": {"path": "good.png"}, **params}, self.task), folder


@pytest.fixture
def job(tmp_path, defect_bundle, dark_engine):
    return Job(tmp_path, defect_bundle, dark_engine)


def pixels(folder, name):
    return cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)


def good(job):
    return pixels(job.inputs, "good.png")


@pytest.mark.parametrize("defect", ["blowhole", "crack", "uneven"])
@pytest.mark.parametrize("region", ["auto", {"box": [60, 60, 150, 100]}, {"polygon": [[60, 50], [250, 60], [150, 200]]}])
def test_a_defect_is_drawn_and_everything_outside_its_mask_is_bit_equal(job, defect, region):
    outcome, folder = job({"defect": defect, "region": region})
    (item,) = outcome.output["items"]
    image, mask, before = pixels(folder, item["image"]), pixels(folder, item["mask"]), good(job)
    assert item["defect"] == defect and set(np.unique(mask)) == {0, 255}
    assert (image[mask == 0] == before[mask == 0]).all()
    assert before[mask > 0].mean() - image[mask > 0].mean() > 8
    assert item["box"] == list(cv2.boundingRect(mask))


def test_the_artifacts_are_all_there_and_listed(job):
    outcome, folder = job({"defect": "blowhole", "count": 2})
    names = [a.name for a in outcome.artifacts]
    assert names == [
        "000_blowhole.png", "000_blowhole_mask.png", "001_blowhole.png", "001_blowhole_mask.png", "annotations.json"
    ]  # fmt: skip
    assert sorted(names) == sorted(p.name for p in folder.iterdir())
    assert outcome.output["annotations"] == "annotations.json"


def test_the_coco_file_describes_every_item(job):
    outcome, folder = job({"count": 5})
    document = json.loads((folder / "annotations.json").read_text())
    names = {c["id"]: c["name"] for c in document["categories"]}
    assert [i["file_name"] for i in document["images"]] == [i["image"] for i in outcome.output["items"]]
    for item, note in zip(outcome.output["items"], document["annotations"]):
        assert names[note["category_id"]] == item["defect"] and note["bbox"] == item["box"]
        assert note["area"] == (pixels(folder, item["mask"]) > 0).sum()


def test_every_picture_says_where_it_comes_from(job):
    outcome, folder = job({"count": 2})
    source = hashlib.sha256((job.inputs / "good.png").read_bytes()).hexdigest()
    for item in outcome.output["items"]:
        for name in (item["image"], item["mask"]):
            text = read_text((folder / name).read_bytes())
            assert text["denoised:synthetic"] == "true" and text["denoised:source_sha256"] == source
            assert text["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
            assert (text["denoised:gateway"], text["denoised:job"], text["denoised:seed"]) == ("gw", "j1", "7")
            assert text["denoised:item_seed"] == str(item["seed"])
    info = json.loads((folder / "annotations.json").read_text())["info"]
    assert info["synthetic"] == "true" and info["job"] == "j1" and info["source_sha256"] == source


def test_the_same_request_and_seed_give_the_same_bytes(job):
    (_, one), (_, other) = (job({"count": 4}) for _ in range(2))
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_another_seed_gives_another_picture(job):
    folders = [job({"defect": "blowhole"}, seed)[1] for seed in (1, 2)]
    assert (pixels(folders[0], "000_blowhole.png") != pixels(folders[1], "000_blowhole.png")).any()


def test_an_item_does_not_depend_on_how_many_are_made_together(job, dark_engine):
    points = [OperatingPoint("fp32", "dpmpp_2m", 4, batch) for batch in (1, 5)]
    (one, a), (other, b) = (job({"count": 5}, point=point) for point in points)
    assert one.output == other.output and max(dark_engine.batches) == 5
    for item in one.output["items"]:
        assert np.abs(pixels(a, item["image"]).astype(int) - pixels(b, item["image"])).max() <= 1


def test_any_item_can_be_made_again_alone_from_its_seed(job):
    many, a = job({"count": 4})
    last = many.output["items"][3]
    alone, b = job({"gate": "off"}, seed=last["seed"])
    assert alone.output["items"][0]["box"] == last["box"] and alone.output["items"][0]["defect"] == last["defect"]
    again = pixels(b, alone.output["items"][0]["image"]).astype(int)
    assert np.abs(pixels(a, last["image"]) - again).max() <= 1


def test_any_draws_different_classes_and_seeds(job):
    items = job({"count": 12})[0].output["items"]
    assert len({i["defect"] for i in items}) == 3 and len({i["seed"] for i in items}) == 12


def test_a_given_mask_is_where_the_defect_is(job):
    wanted = np.zeros((240, 320), np.uint8)
    cv2.ellipse(wanted, (150, 120), (20, 9), 30, 0, 360, 255, -1)
    data = base64.b64encode(cv2.imencode(".png", wanted)[1].tobytes()).decode()
    outcome, folder = job({"region": {"mask": {"data": data}}, "defect": "blowhole"})
    assert (pixels(folder, outcome.output["items"][0]["mask"]) == wanted).mean() > 0.999


@pytest.mark.parametrize("mode", ["colour", "alpha", "grey16"])
def test_colour_alpha_and_16_bits_survive(job, mode):
    grey = surface.frame(1, 0, 320, 240)
    image = {
        "colour": np.dstack([grey, grey // 2, grey // 3]),
        "alpha": np.dstack([grey, grey, grey, np.full_like(grey, 77)]),
        "grey16": grey.astype(np.uint16) * 257,
    }[mode]
    outcome, folder = job({"defect": "uneven"}, image=cv2.imencode(".png", image)[1].tobytes())
    (item,) = outcome.output["items"]
    after, mask = pixels(folder, item["image"]), pixels(folder, item["mask"])
    assert after.dtype == image.dtype and after.shape == image.shape and (after[mask == 0] == image[mask == 0]).all()
    assert (after != image).any() and (mode != "alpha" or (after[..., 3] == 77).all())


def test_the_picture_may_come_inline_or_from_a_camera(job):
    data = (job.inputs / "good.png").read_bytes()
    by_path, a = job({"defect": "blowhole"})
    inline, b = job({"defect": "blowhole", "image": {"data": base64.b64encode(data).decode()}})
    frame, c = job({"defect": "blowhole", "image": {"camera": "line1"}}, frame=job.inputs / "good.png")
    assert by_path.output == inline.output == frame.output
    for folder in (b, c):
        assert (folder / "000_blowhole.png").read_bytes() == (a / "000_blowhole.png").read_bytes()


@pytest.mark.parametrize("shape", [(16, 16), (40, 400), (700, 30)])
def test_small_and_narrow_pictures_work(job, shape):
    image = cv2.resize(surface.frame(2, 0)[100:300, 100:300], shape[::-1])
    outcome, folder = job({"count": 6}, image=cv2.imencode(".png", image)[1].tobytes())
    for item in outcome.output["items"]:
        mask = pixels(folder, item["mask"])
        assert mask.shape == shape and mask.any()
        assert (pixels(folder, item["image"])[mask == 0] == image[mask == 0]).all()


@pytest.mark.parametrize("level", [0, 255])
def test_a_picture_without_any_part_works_too(job, level):
    outcome, _ = job({"count": 3}, image=cv2.imencode(".png", np.full((120, 160), level, np.uint8))[1].tobytes())
    assert len(outcome.output["items"]) == 3


@pytest.mark.parametrize(
    "params, image, code, field",
    [
        ({}, b"no picture", "input", "params.image.path"),
        ({"image": {"data": base64.b64encode(b"no picture").decode()}}, None, "input", "params.image.data"),
        ({"region": {"box": [300, 200, 60, 60]}}, None, "bad-request", "params.region.box"),
        ({"region": {"mask": {"data": base64.b64encode(b"no").decode()}}}, None, "input", "params.region.mask.data"),
    ],
)
def test_bad_input_found_at_work_is_refused_with_its_field(job, params, image, code, field):
    with pytest.raises(Refusal) as caught:
        job(params, image=image)
    assert (caught.value.code, caught.value.field) == (code, field)


def test_a_picture_above_the_sites_limit_is_refused_as_too_large(job):
    with pytest.raises(Refusal) as caught:
        job({}, max_pixels=320 * 240 - 1)
    assert (caught.value.code, caught.value.field) == ("too-large", "params.image.path")


def test_severity_reaches_the_network(job, dark_engine):
    job({"severity": 0.25, "count": 2})
    assert dark_engine.severities == {0.25}


@pytest.fixture(scope="module")
def shipped():
    pytest.importorskip("onnxruntime", reason="the shipped network needs onnxruntime")
    from denoised.engines.engine import open_engine

    bundle = read_bundle(SHIPPED / "surface-defects")
    bundle.verify()
    engines = {name: open_engine(bundle.file(file)) for name, file in bundle.manifest.variants["fp32"].items()}
    yield bundle, engines
    for engine in engines.values():
        engine.close()


@pytest.mark.parametrize("defect", ["blowhole", "break", "crack", "fray", "uneven"])
def test_the_shipped_model_draws_a_visible_defect_of_every_class(job, shipped, defect):
    bundle, engine = shipped
    outcome, folder = job({"defect": defect, "count": 3, "severity": 0.9}, bundle=bundle, engine=engine)
    before = good(job).astype(int)
    contrast = []
    for item in outcome.output["items"]:
        image, mask = pixels(folder, item["image"]), pixels(folder, item["mask"])
        assert (image[mask == 0] == before[mask == 0]).all()
        contrast.append(np.abs(image[mask > 0] - before[mask > 0]).mean())
    assert np.median(contrast) > 6


def test_the_shipped_model_turns_severity_into_contrast(job, shipped):
    bundle, engine = shipped
    strength = []
    for severity in (0.05, 0.95):
        outcome, folder = job({"defect": "blowhole", "count": 6, "severity": severity}, bundle=bundle, engine=engine)
        drawn = [pixels(folder, i["image"]).astype(int) - good(job) for i in outcome.output["items"]]
        strength.append(np.mean([np.abs(d[d != 0]).mean() for d in drawn]))
    assert strength[1] > 1.3 * strength[0]


# ---- the gate -----------------------------------------------------------------------------------------------------------

ALL = {"contrast": (0.0, 1e6), "completeness": (0.0, 1e6), "agreement": None, "novelty": 2.0, "outline": 2.0}
QUICK = OperatingPoint("fp32", "dpmpp_2m", 2, 4)


@pytest.fixture
def gated(defect_bundle):
    """Makes a bundle whose gate accepts the seams that it draws, and these bands of every class."""

    def make(**bands):
        classes = {c: {**ALL, "pictures": 5, "parts": 5, **bands} for c in defect_bundle.manifest.classes}
        known = {"classes": classes, "level": 0.0, "silent": 1.0, "surface": {}, "descriptors": "", "outlines": ""}
        folder = defect_bundle.folder
        (folder / "gate.json").write_text(json.dumps(known))
        manifest = yaml.safe_load((folder / "model.yaml").read_text())
        manifest["geometry"]["gate"] = "gate.json"
        (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
        write_sums(folder)
        return read_bundle(folder)

    return make


@pytest.fixture
def seamless(monkeypatch):
    """Pixels that are independent of each other have a seam wherever they end."""
    monkeypatch.setattr("denoised.plugins.defect_synthesis.gate.SEAM", 1e6)


def test_without_the_gate_nothing_is_checked_and_the_result_says_so(job):
    output = job({"count": 3, "gate": "off"})[0].output
    assert output["gate"] == {"mode": "off"} and all("scores" not in item for item in output["items"])


@pytest.mark.usefixtures("seamless")
def test_what_is_rejected_is_drawn_again_until_it_passes(job, gated):
    bundle = gated(contrast=(2.5, 1e6))
    outcome, folder = job({"count": 12, "defect": "blowhole"}, bundle=bundle)
    told, items = outcome.output["gate"], outcome.output["items"]
    assert told["reasons"] == {"contrast-low": told["rejected"]} and told["rejected"] > 0
    again = [i for i in items if i["accepted"] and i["tries"] > 1]
    assert again and all(i["scores"]["contrast"] >= 2.5 for i in items if i["accepted"])
    alone, other = job({"defect": "blowhole"}, seed=again[0]["seed"], bundle=bundle)
    assert alone.output["items"][0]["tries"] == 1
    name = again[0]["image"]
    assert np.abs(pixels(folder, name).astype(int) - pixels(other, "000_blowhole.png")).max() <= 1


@pytest.mark.usefixtures("seamless")
def test_what_never_passes_is_delivered_and_marked_or_left_out(job, gated):
    bundle = gated(contrast=(1e5, 1e6))
    marked, folder = job({"count": 3}, bundle=bundle)
    told = marked.output["gate"]
    assert (told["accepted"], told["marked"], told["left_out"], told["rejected"]) == (0, 3, 0, 9)
    assert all(i["reasons"] == ["contrast-low"] and i["tries"] == 3 for i in marked.output["items"])
    notes = json.loads((folder / "annotations.json").read_text())["annotations"]
    assert [n["accepted"] for n in notes] == [False] * 3
    text = read_text((folder / marked.output["items"][0]["image"]).read_bytes())
    assert text["denoised:gate"] == "rejected: contrast-low"
    strict, empty = job({"count": 3, "gate": "strict"}, bundle=bundle)
    told = strict.output["gate"]
    assert strict.output["items"] == [] and [p.name for p in empty.iterdir()] == ["annotations.json"]
    assert (told["accepted"], told["marked"], told["left_out"], told["rejected"]) == (0, 0, 3, 24)


@pytest.mark.usefixtures("seamless")
def test_a_class_that_is_hard_to_draw_does_not_become_rare(job, gated):
    plain = job({"count": 12, "gate": "off"})[0].output["items"]
    picky = job({"count": 12}, bundle=gated(contrast=(2.5, 1e6)))[0].output
    assert picky["gate"]["rejected"] and [i["defect"] for i in picky["items"]] == [i["defect"] for i in plain]


@pytest.mark.usefixtures("seamless")
@pytest.mark.parametrize("collapse", [2.0, 0.75])
def test_what_the_gate_accepts_does_not_depend_on_how_many_are_made_together(job, gated, collapse):
    bundle = gated(contrast=(2.2, 1e6), novelty=collapse)
    points = [OperatingPoint("fp32", "dpmpp_2m", 4, batch) for batch in (1, 5)]
    (one, a), (other, b) = (job({"count": 10, "defect": "blowhole"}, point=point, bundle=bundle) for point in points)
    assert one.output == other.output and one.output["gate"]["rejected"]
    assert ("collapse" in one.output["gate"]["reasons"]) == (collapse < 1)
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())


def test_strict_is_refused_where_the_model_knows_no_real_defects(job):
    with pytest.raises(Refusal, match="expected 'on' or 'off'") as caught:
        job({"gate": "strict"})
    assert (caught.value.code, caught.value.field) == ("bad-request", "params.gate")


def test_an_interrupted_job_goes_on_to_the_same_bytes_with_the_gate_at_work(job, shipped):
    bundle, engines = shipped
    params = {"image": {"path": "good.png"}, "count": 6, "severity": 0.3}
    outcome, whole = job(params, bundle=bundle, engine=engines, point=QUICK)
    assert outcome.output["gate"]["rejected"] > 0
    results: list = []

    def solved(problem):
        results.append(solve(trajectory(problem, job.task)))
        return results[-1]

    request: Any = typed.read(params, KIND.params)
    drive(KIND.work(request, replace(job.task, folder=whole)), solved)
    for cut in (1, len(results) // 2, len(results) - 1):
        folder = whole.parent / f"resumed{cut}"
        folder.mkdir()
        kept = iter(results[:cut])

        def resumed(problem, kept=kept):
            saved = next(kept, None)
            return solve(trajectory(problem, job.task)) if saved is None else saved

        again = drive(KIND.work(request, replace(job.task, folder=folder)), resumed)
        assert again == outcome
        for path in whole.iterdir():
            assert path.read_bytes() == (folder / path.name).read_bytes()


def test_the_shipped_models_gate_scores_every_item_and_its_count_adds_up(job, shipped):
    bundle, engines = shipped
    outcome, folder = job({"count": 8, "defect": "crack"}, bundle=bundle, engine=engines, point=QUICK)
    told, items = outcome.output["gate"], outcome.output["items"]
    assert told["mode"] == "on" and told["accepted"] + told["marked"] == len(items) == 8 and told["left_out"] == 0
    assert sum(i["accepted"] for i in items) == told["accepted"] and all(i["tries"] <= 3 for i in items)
    assert all({"containment", "seam", "novelty", "outline", "agreement", "original"} <= set(i["scores"]) for i in items)
    reference = read_reference(bundle)
    assert reference is not None
    known = reference.classes["crack"]
    for item in items:
        assert item["scores"]["containment"] == 0
        if item["accepted"]:
            assert known.contrast[0] <= item["scores"]["contrast"] <= known.contrast[1]
            assert item["scores"]["agreement"] >= known.agreement


def test_strict_with_the_shipped_model_delivers_accepted_items_alone(job, shipped):
    bundle, engines = shipped
    params = {"count": 4, "defect": "crack", "severity": 0.0, "gate": "strict"}
    output = job(params, bundle=bundle, engine=engines, point=QUICK)[0].output
    assert all(item["accepted"] for item in output["items"])
    assert len(output["items"]) + output["gate"]["left_out"] == 4 and output["gate"]["marked"] == 0
