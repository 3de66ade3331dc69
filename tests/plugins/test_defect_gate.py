"""The acceptance gate on constructed pictures: a smooth surface with dark round defects of known strength."""

import base64
import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from denoised.config import typed
from denoised.config.refusal import Refusal
from denoised.engines.host import over_run
from denoised.plugins.defect_synthesis import measure, region
from denoised.plugins.defect_synthesis.gate import ClassReference, Gate, Reference, read_reference

WIDE = (0.0, 1e6)
PIT = ClassReference((3.0, 12.0), (1.3, 8.0), 0.3, 0.9, 1.0, 20, 5)


def surface(seed=0, size=160):
    """(size, size) uint8, about 120, fine grain of deviation 4."""
    rng = np.random.default_rng(seed)
    return np.clip(120 + 4 * rng.standard_normal((size, size)), 0, 255).astype(np.uint8)


def disc(radius=9, x=80, y=80, size=160):
    pixels = np.zeros((size, size), np.uint8)
    cv2.circle(pixels, (x, y), radius, 1, -1)
    return region.trimmed(pixels)


def change_of(mask, darker, seed=0, soft=6.0):
    """A pit (h, w): `darker` grey levels at its bottom, over a random texture of its own."""
    inside = np.pad(mask.pixels, 1)
    depth = np.clip(cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1] / soft, 0, 1)
    grain = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(mask.pixels.shape), (0, 0), 1.2)
    return (-darker * depth * (1 + 0.6 * grain / grain.std())).astype(np.float32)


def pit(darker=40.0, seed=0, soft=6.0, mask=None, image=None, rim=2.0):
    """The view of one pit in the surface."""
    mask = mask or disc()
    return measure.view_of(surface() if image is None else image, change_of(mask, darker, seed, soft), mask, mask, rim)


def packed(*views):
    """The reference's two fields for what was trained on."""
    known = np.stack([measure.descriptors(v)[0] for v in views])
    scaled = np.round(known / np.abs(known).max(1, keepdims=True) * 127).astype(np.int8)
    outlines = np.packbits(np.stack([measure.outline(v)[0] for v in views]), axis=1)
    return {
        "descriptors": base64.b64encode(scaled.tobytes()).decode(),
        "outlines": base64.b64encode(outlines.tobytes()).decode(),
    }


def reference(*trained, **other):
    ground = {"grain": (0.01, 0.2), "waves": (0.001, 0.2)}
    fields = {"surface": ground, "descriptors": "", "outlines": ""}
    fields |= packed(*trained) if trained else {}
    return Reference(**{"classes": {"pit": PIT}, "level": 0.0, "silent": 0.2, **fields, **other})


class DarkSpots:
    """A detector by one rule: a cell darker than the window's level by `least` units is defect."""

    provider = "numpy"

    def __init__(self, least=0.4):
        self.least, self.batches = least, []

    inputs: dict = {}
    outputs: dict = {}

    def run(self, feeds):
        self.batches.append(len(feeds["x"]))
        cells = feeds["x"].reshape(-1, 1, measure.GRID, 2, measure.GRID, 2).mean((3, 5))
        return {"out": -cells - self.least}

    def bind(self, x, conditions):
        return over_run(self, x, conditions)

    def close(self):
        pass


def gate(known=None, detector=None, mode="on", image=None, given=False):
    return Gate(mode, known, detector, surface() if image is None else image, 255.0, ("pit",), given)


def reasons(view, known=None, detector=None, given=False):
    return gate(known, detector, given=given).judge(view, "pit").reasons


# ---- one condition each -------------------------------------------------------------------------------------------------


def test_a_clear_defect_passes_every_condition():
    verdict = gate(reference(pit(seed=5, mask=disc(20))), DarkSpots(0.25)).judge(pit(), "pit")
    assert verdict.reasons == ()
    wanted = {"containment", "contrast", "completeness", "seam", "novelty", "outline", "agreement", "original"}
    assert set(verdict.scores) == wanted and verdict.scores["containment"] == 0


def test_too_faint_and_too_strong_are_told_apart():
    assert "contrast-low" in reasons(pit(darker=4), reference())
    assert "contrast-high" in reasons(pit(darker=118, soft=1.0), reference())


def test_a_border_without_a_step_and_one_too_hard_are_told_apart():
    known = reference(classes={"pit": replace(PIT, contrast=WIDE, completeness=(1.3, 2.0))})
    assert reasons(pit(darker=20, soft=12.0, mask=disc(14)), known) == ("completeness-low",)
    assert "completeness-high" in reasons(pit(darker=60, soft=1.0), known)


def test_a_cut_along_the_outline_is_a_seam():
    smooth = cv2.GaussianBlur(surface(), (0, 0), 2)
    assert "seam" in reasons(pit(darker=60, soft=0.5, image=smooth, rim=0.5))
    assert "seam" not in reasons(pit(darker=30, soft=9.0, image=smooth, rim=3.0))


def test_pixels_that_changed_outside_the_mask_are_rejected():
    assert reasons(replace(pit(), leaked=1)) == ("containment",)


@pytest.mark.parametrize("image", [surface(), np.dstack([surface(k) for k in range(3)]), surface().astype(np.uint16) * 257])
@pytest.mark.parametrize("mask", [disc(), disc(9, 3, 80), disc(60)])
def test_what_is_judged_is_what_is_blended_into_the_whole_picture(image, mask):
    from denoised.plugins.defect_synthesis import blend, picture

    change = change_of(mask, 40)
    view = measure.view_of(image, change, mask, mask, 2.0)
    whole = blend.blended(image, change, mask, mask, 2.0)
    windows = [step.window for step in region.plan(mask, image.shape)]
    grey = picture.grey_of(whole).astype(np.float32) * np.float32(255 / picture.full_scale(image))
    assert view.leaked == 0
    np.testing.assert_array_equal(view.after, np.stack([region.shrink(grey[w.slices]) for w in windows]))


def turned(view, how):
    after, before, mask = (np.ascontiguousarray(how(a)) for a in (view.after, view.before, view.mask))
    return measure.View(after, before, mask)


@pytest.mark.parametrize("mask", [disc(), disc(9, 79, 82)], ids=["there", "moved"])
@pytest.mark.parametrize(
    "how", [lambda a: a, lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: a.transpose(0, 2, 1)],
    ids=["same", "upside-down", "mirrored", "turned"],
)  # fmt: skip
def test_a_copy_of_a_training_defect_is_found_in_any_position(how, mask):
    trained = pit(seed=3, darker=60)
    known = reference(trained)
    assert "novelty" in reasons(turned(pit(seed=3, darker=60, mask=mask), how), known)
    assert "novelty" not in reasons(turned(pit(seed=4, darker=60, mask=mask), how), known)


def test_an_outline_that_was_trained_on_is_rejected_unless_the_requester_gave_it():
    pixels = np.zeros((160, 160), np.uint8)
    cv2.ellipse(pixels, (80, 80), (20, 6), 30, 0, 360, 1, -1)
    known = reference(pit(seed=9, mask=region.trimmed(pixels)), classes={"pit": replace(PIT, outline=0.9)})
    mirrored = region.trimmed(np.ascontiguousarray(pixels[:, ::-1]))
    assert "outline" in reasons(pit(mask=mirrored), known)
    assert "outline" not in reasons(pit(mask=mirrored), known, given=True)
    assert "outline" not in reasons(pit(mask=disc(12)), known)


def test_a_mask_that_the_detector_does_not_find_is_rejected():
    assert "agreement" in reasons(pit(darker=12), reference(), DarkSpots(0.5))
    assert "agreement" not in reasons(pit(darker=60), reference(), DarkSpots(0.5))


def test_a_place_that_was_no_good_surface_before_is_rejected():
    stained = surface()
    cv2.circle(stained, (80, 80), 9, 60, -1)
    assert "original" in reasons(pit(image=stained), reference(), DarkSpots())


def test_the_detector_is_never_asked_for_more_windows_than_engines_are_built_for():
    detector = DarkSpots()
    measure.respond(detector, np.zeros((19, 64, 64), np.float32))
    assert detector.batches == [8, 8, 3]


# ---- the job ------------------------------------------------------------------------------------------------------------


def test_an_item_like_an_accepted_one_of_the_same_job_is_a_collapse():
    judge = gate(reference())
    first, again, other = (judge.among(judge.judge(pit(seed=s), "pit")) for s in (0, 0, 1))
    assert (first.reasons, again.reasons, other.reasons) == ((), ("collapse",), ())
    assert again.scores["collapse"] > 0.99 > other.scores["collapse"]


def test_rejections_are_counted_by_reason_and_the_count_adds_up():
    judge = gate(reference(), DarkSpots())
    for seed, darker in ((0, 40), (1, 4), (2, 4)):
        verdict = judge.among(judge.judge(pit(darker, seed), "pit"))
        if verdict.reasons:
            judge.reject(verdict)
    told = judge.summary(count=4, delivered=3)
    assert (told["accepted"], told["marked"], told["left_out"], told["rejected"]) == (1, 2, 1, 2)
    assert told["reasons"]["contrast-low"] == 2 and told["unchecked"] == []


def test_without_reference_the_gate_checks_what_it_can_and_says_so():
    judge = gate(None)
    verdict = judge.among(judge.judge(pit(), "pit"))
    assert set(verdict.scores) == {"containment", "contrast", "completeness", "seam"} and verdict.reasons == ()
    assert judge.among(judge.judge(pit(), "pit")).reasons == ("collapse",)
    assert judge.summary(2, 2)["unchecked"] == ["contrast", "completeness", "agreement", "original", "novelty", "outline"]


def test_a_class_whose_real_defects_the_detector_does_not_find_is_not_judged_by_it():
    known = reference(classes={"pit": replace(PIT, agreement=None)})
    judge = gate(known, DarkSpots())
    assert "agreement" not in judge.judge(pit(darker=45), "pit").scores
    assert judge.summary(1, 1)["unchecked"] == ["agreement", "original"]


def test_on_a_surface_unlike_the_references_only_what_does_not_depend_on_it_is_checked():
    rough = np.clip(120 + 60 * np.random.default_rng(0).standard_normal((160, 160)), 0, 255).astype(np.uint8)
    judge = gate(reference(), DarkSpots(), image=rough)
    assert judge.judge(pit(darker=4, image=rough), "pit").reasons == ()
    assert judge.summary(1, 1)["unchecked"] == ["contrast", "completeness", "agreement", "original"]
    with pytest.raises(Refusal, match=r"unlike .*grain 0\.\d+, known 0\.010 to 0\.200") as caught:
        gate(reference(), DarkSpots(), "strict", rough)
    assert (caught.value.code, caught.value.field) == ("input", "params.gate")


def test_the_surface_does_not_depend_on_exposure_or_bit_depth():
    dark, bright = measure.surface(surface() // 2), measure.surface(surface())
    assert dark["grain"] == pytest.approx(bright["grain"], rel=0.25)
    assert measure.surface(surface().astype(np.uint16) * 257, 65535.0) == pytest.approx(bright)


def test_the_reference_is_read_from_the_bundle_or_none(defect_bundle):
    assert read_reference(defect_bundle) is None
    plain = json.loads(json.dumps(asdict(reference(pit()))))
    assert typed.read(plain, Reference) == reference(pit())


def test_stored_descriptors_hold_a_ninth_of_a_patch_and_so_no_picture():
    patch, kept = measure.PATCH**2, measure.DIMS
    assert kept / patch < 0.12
    rng = np.random.default_rng(0)
    projection = measure._projection()
    x = rng.standard_normal(patch)
    back = np.linalg.pinv(projection.T) @ (x @ projection)
    assert np.corrcoef(x, back)[0, 1] < 0.5
