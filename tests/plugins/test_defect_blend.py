import json

import cv2
import numpy as np
import pytest
from denoised.plugins.defect_synthesis import blend, coco, region

RNG = np.random.default_rng(0)


def picture(shape, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return RNG.integers(top // 4, top // 2, shape, dtype=dtype)


def round_mask(x, y, r):
    yy, xx = np.mgrid[-r : r + 1, -r : r + 1]
    return region.Mask(x, y, (xx**2 + yy**2 <= r * r).astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        picture((90, 120)),
        picture((90, 120, 3)),
        picture((90, 120, 4)),
        picture((90, 120), np.uint16),
        picture((90, 120, 3), np.uint16),
    ],
    ids=["grey", "colour", "alpha", "grey16", "colour16"],
)
def test_pixels_outside_the_mask_and_the_alpha_channel_stay_bit_equal(image):
    mask = round_mask(3, 2, 12)
    change = np.full(mask.pixels.shape, -40, np.float32)
    out = blend.blended(image, change, mask, mask, 2.0)
    covered = mask.cut(region.Window(0, 0, 120, 90)) > 0
    assert out.dtype == image.dtype and (out[~covered] == image[~covered]).all()
    if image.ndim == 3 and image.shape[2] == 4:
        assert (out[..., 3] == image[..., 3]).all()
    deep = cv2.erode(covered.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    drawn = (out.astype(int) - image)[deep] if image.ndim == 2 else (out.astype(int) - image)[deep][:, :3]
    assert (drawn == round(-40 * np.iinfo(image.dtype).max / 255)).all()


def test_a_change_beyond_the_scale_is_clipped_and_does_not_wrap():
    image = np.array([[250, 5]], np.uint8).repeat(20, 0).repeat(20, 1)
    mask = region.Mask(0, 0, np.ones(image.shape, np.uint8))
    out = blend.blended(image, np.where(image > 100, 90, -90).astype(np.float32), mask, mask, 2.0)
    assert set(np.unique(out)) == {0, 255}


def test_the_change_fades_in_from_the_outline_but_not_from_the_pictures_border():
    image, mask = np.full((64, 64), 100, np.uint8), region.Mask(0, 20, np.ones((30, 30), np.uint8))
    out = blend.blended(image, np.full((30, 30), -50, np.float32), mask, mask, 2.0)
    assert out[35, 15] == 50 and out[35, 0] == 50
    assert 50 < out[20, 15] < 100 and 50 < out[35, 29] < 100


def test_a_hairline_keeps_half_its_contrast():
    image, mask = np.full((64, 64), 100, np.uint8), region.Mask(10, 20, np.ones((1, 30), np.uint8))
    out = blend.blended(image, np.full((1, 30), -50, np.float32), mask, mask, 2.0)
    assert out[20, 25] == 75


def test_windows_of_a_walk_are_laid_side_by_side():
    mask = region.Mask(10, 10, np.ones((5, 100), np.uint8))
    steps = region.plan(mask, (64, 128))
    drawn = [(s.window, s.share, np.full((64, 64), -10.0 * (i + 1), np.float32)) for i, s in enumerate(steps)]
    change = blend.total_change(drawn, mask)
    assert set(np.unique(change)) == {-10.0 * (i + 1) for i in range(len(steps))}


def test_faint_outskirts_of_a_strong_defect_are_neither_changed_nor_labelled():
    image, mask = np.full((128, 128), 100, np.uint8), region.Mask(20, 20, np.ones((60, 60), np.uint8))
    change = np.full((60, 60), -4, np.float32)
    change[20:40, 20:40] = -80
    shown = blend.published(change, mask)
    out = blend.blended(image, change, mask, shown, 2.0)
    label = shown.cut(region.Window(0, 0, 128, 128))
    assert label[42:58, 42:58].all() and label.sum() < 900 and (out[label == 0] == 100).all()


def test_a_gap_inside_a_defect_is_labelled_with_it():
    mask = region.Mask(20, 20, np.ones((80, 80), np.uint8))
    change = np.full((80, 80), -40, np.float32)
    change[30:50, 30:50] = 0
    assert blend.published(change, mask).pixels.all()


def test_where_nothing_is_seen_nothing_is_labelled():
    mask = region.Mask(40, 50, np.ones((60, 60), np.uint8))
    change = np.zeros((60, 60), np.float32)
    change[10:30, 10:30] = -60
    shown = blend.published(change, mask)
    assert (shown.x, shown.y) != (40, 50)
    assert 400 <= shown.pixels.sum() < 900
    covered = shown.cut(region.Window(40, 50, 60, 60))
    assert covered[10:30, 10:30].all()


def test_crumbs_of_a_patch_go_but_a_small_patch_of_its_own_stays():
    pixels = np.zeros((100, 100), np.uint8)
    pixels[:, :60] = 1
    pixels[40:46, 80:86] = 1
    change = np.zeros((100, 100), np.float32)
    change[10:90, 5:40] = -40
    change[45:49, 55:59] = -40
    change[40:46, 80:86] = -40
    shown = blend.published(change, region.Mask(0, 0, pixels)).cut(region.Window(0, 0, 100, 100))
    assert shown[50, 20] and shown[43, 83] and not shown[47, 57]


def test_a_change_that_is_nowhere_visible_keeps_the_whole_mask():
    mask = region.Mask(40, 50, np.ones((20, 20), np.uint8))
    assert blend.published(np.zeros((20, 20), np.float32), mask) is mask


def rasterised(outline, shape):
    """What a reader of COCO makes of a segmentation: pixels whose centre is inside."""
    if isinstance(outline, dict):
        flat = np.repeat(np.arange(len(outline["counts"])) % 2, outline["counts"])
        return flat.reshape(shape, order="F").astype(np.uint8)
    out = np.zeros(shape, np.uint8)
    for y in range(shape[0]):
        for x in range(shape[1]):
            for ring in outline:
                points = np.array(ring, np.float32).reshape(-1, 1, 2)
                out[y, x] |= cv2.pointPolygonTest(points, (x + 0.5, y + 0.5), False) >= 0
    return out


@pytest.mark.parametrize(
    "draw",
    [
        lambda m: cv2.circle(m, (20, 15), 9, 1, -1),
        lambda m: cv2.line(m, (3, 2), (35, 25), 1, 1),
        lambda m: m.__setitem__((0, 0), 1),
        lambda m: m.__setitem__((slice(5, 20), slice(0, 40)), 1),
        lambda m: [m.__setitem__((4, 4), 1), m.__setitem__((5, 5), 1), cv2.circle(m, (30, 20), 4, 1, -1)],
        lambda m: cv2.circle(m, (20, 15), 9, 1, 3),
    ],
    ids=["disc", "hairline", "one pixel", "to the border", "three pieces", "ring"],
)
def test_the_segmentation_gives_back_the_mask_to_the_pixel(draw):
    full = np.zeros((30, 40), np.uint8)
    draw(full)
    note = coco.annotation(1, 1, region.trimmed(full), full.shape)
    assert (rasterised(note["segmentation"], full.shape) == full).all()
    assert note["area"] == full.sum() and note["bbox"] == list(cv2.boundingRect(full))
    json.dumps(note)
