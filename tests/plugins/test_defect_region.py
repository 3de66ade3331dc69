import cv2
import numpy as np
import pytest
from denoised.config.refusal import Refusal
from denoised.demo import surface
from denoised.plugins.defect_synthesis import masks, place, region
from denoised.plugins.defect_synthesis.params import MaskFile, Region
from hypothesis import given, settings
from hypothesis import strategies as st


def line(shape, start, end, thick):
    mask = np.zeros(shape, np.uint8)
    cv2.line(mask, start, end, 1, thick)
    return region.trimmed(mask)


def whole(mask, shape):
    return mask.cut(region.Window(0, 0, shape[1], shape[0]))


def test_a_small_mask_is_seen_pixel_by_pixel_in_one_window():
    mask = region.Mask(300, 200, np.ones((20, 30), np.uint8))
    (step,) = region.plan(mask, (480, 640))
    assert (step.window.w, step.window.h, step.window.scale) == (64, 64, 0)
    assert step.share.cut(step.window).sum() == 600


def test_a_large_mask_is_seen_made_smaller_with_room_around_it():
    mask = region.Mask(100, 100, np.ones((150, 200), np.uint8))
    (step,) = region.plan(mask, (480, 640))
    assert step.window.w == step.window.h and step.window.scale > 1
    assert step.share.cut(step.window).sum() == 150 * 200


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 399), st.integers(0, 299), st.integers(0, 399), st.integers(0, 299), st.integers(1, 9))
def test_the_windows_of_any_line_draw_each_of_its_pixels_exactly_once(x0, y0, x1, y1, thick):
    shape = (300, 400)
    mask = line(shape, (x0, y0), (x1, y1), thick)
    steps = region.plan(mask, shape)
    drawn = np.zeros(shape, int)
    for step in steps:
        drawn[step.window.slices] += step.share.cut(step.window)
        assert step.window.x >= 0 and step.window.x + step.window.w <= 400
        assert step.window.y >= 0 and step.window.y + step.window.h <= 300
    assert (drawn == whole(mask, shape)).all()


def test_a_long_crack_is_walked_from_one_end_to_the_other_at_native_scale():
    steps = region.plan(line((480, 640), (50, 60), (500, 300), 5), (480, 640))
    assert len(steps) > 5 and all(step.window.scale == 0 for step in steps)
    across = [step.window.x for step in steps]
    assert across == sorted(across) or across == sorted(across, reverse=True)


def test_a_picture_smaller_than_a_window_is_seen_whole():
    (step,) = region.plan(region.Mask(2, 2, np.ones((9, 9), np.uint8)), (40, 30))
    assert (step.window.w, step.window.h) == (30, 40)
    assert region.shrink(np.zeros((40, 30), np.uint8)).shape == (64, 64)


def test_exposure_cancels_in_the_networks_units():
    good = np.random.default_rng(0).uniform(60, 90, (64, 64)).astype(np.float32)
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 20:40] = 1
    (level, gain), (level2, gain2) = region.units(good, mask), region.units(2 * good, mask)
    assert level2 == pytest.approx(2 * level, rel=1e-4) and gain2 / gain == pytest.approx(2, rel=0.25)


@pytest.fixture(scope="module")
def part():
    return surface.frame(0, 0)


SHAPE = masks.Shape("blob", 0.3, (200.0, 600.0, 2000.0), (1.1, 1.5, 3.0), 0.1, 300.0)
CRACK = masks.Shape("walk", 0.8, (150.0, 300.0, 500.0), (12.0, 25.0, 40.0), 0.15, 300.0)


@pytest.mark.parametrize("shape", [SHAPE, CRACK])
def test_a_place_of_the_kinds_own_choice_is_on_the_part(part, shape):
    where = place.place_of(part, Region())
    on = masks.part_of(part)
    for seed in range(20):
        mask = whole(where.draw(shape, np.random.default_rng(seed)), part.shape)
        assert mask.any() and not (mask & (1 - on)).any()


@pytest.mark.parametrize("shape", [SHAPE, CRACK])
@pytest.mark.parametrize("box", [(200, 150, 90, 60), (200, 150, 12, 9), (0, 0, 640, 480), (639, 479, 1, 1), (3, 3, 5, 200)])
def test_a_mask_lies_inside_the_box_to_the_pixel(part, shape, box):
    x, y, w, h = box
    where = place.place_of(part, Region(box=box))
    for seed in range(8):
        mask = where.draw(shape, np.random.default_rng(seed))
        rows, columns = mask.pixels.shape
        assert mask.pixels.any() and mask.x >= x and mask.y >= y and mask.x + columns <= x + w and mask.y + rows <= y + h


def test_a_mask_lies_inside_the_polygon_to_the_pixel_in_a_picture_too_large_for_the_grid():
    large = cv2.resize(surface.frame(0, 0), (3200, 2400))
    corners = ((400.0, 400.0), (3000.0, 500.0), (1500.0, 2300.0))
    where = place.place_of(large, Region(polygon=corners))
    assert where.factor > 1
    limit = np.zeros(large.shape, np.uint8)
    cv2.fillPoly(limit, [np.round((np.array(corners) - 0.5) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    for seed in range(5):
        mask = whole(where.draw(SHAPE, np.random.default_rng(seed)), large.shape)
        assert mask.any() and not (mask & (1 - limit)).any()


@pytest.mark.parametrize(
    "asked, field",
    [
        (Region(box=(600, 10, 41, 10)), "params.region.box"),
        (Region(polygon=((0, 0), (700, 0), (0, 400))), "params.region.polygon"),
    ],
)
def test_a_region_outside_the_picture_is_refused_with_its_size(part, asked, field):
    with pytest.raises(Refusal, match="640 x 480") as caught:
        place.place_of(part, asked)
    assert (caught.value.code, caught.value.field) == ("bad-request", field)


def test_a_mask_that_is_given_is_taken_as_it_is(part):
    wanted = np.zeros(part.shape, np.uint8)
    wanted[100:140, 200:260] = 255
    where = place.place_of(part, Region(mask=MaskFile(path="m.png")), wanted)
    assert (whole(where.draw(SHAPE, np.random.default_rng(0)), part.shape) * 255 == wanted).all()


@pytest.mark.parametrize("mask", [np.zeros((480, 640), np.uint8), np.full((480, 639), 255, np.uint8)])
def test_an_empty_mask_or_one_of_another_size_is_refused(part, mask):
    with pytest.raises(Refusal) as caught:
        place.place_of(part, Region(mask=MaskFile(data="QUJD")), mask)
    assert (caught.value.code, caught.value.field) == ("input", "params.region.mask.data")


def test_a_fitted_shape_draws_masks_of_the_sizes_it_was_fitted_on():
    rng = np.random.default_rng(0)
    part = np.ones((300, 300), np.uint8)
    first = [masks.draw(SHAPE, part, rng, 1.0) for _ in range(60)]
    fitted = masks.fit(first, [part] * 60)
    again = [float(masks.draw(fitted, part, rng, 1.0).sum()) for _ in range(60)]
    assert fitted.form == "blob"
    assert 0.6 < np.median(again) / np.median([m.sum() for m in first]) < 1.6


def test_thin_masks_from_the_edge_are_fitted_as_a_walk():
    part = np.ones((300, 300), np.uint8)
    cracks = [masks.draw(CRACK, part, np.random.default_rng(seed), 1.0) for seed in range(30)]
    fitted = masks.fit(cracks, [part] * 30)
    assert fitted.form == "walk" and fitted.edge > 0.5


def direction(mask):
    (_, _), (a, b), turn = cv2.minAreaRect(np.argwhere(mask)[:, ::-1].astype(np.float32))
    return (turn if a >= b else turn + 90) % 180


def test_cracks_that_all_run_upright_are_drawn_upright():
    part = np.ones((300, 300), np.uint8)
    upright = masks.Shape("walk", 0.0, (150.0, 300.0, 500.0), (8.0, 11.0, 16.0), 0.15, 300.0, axis=90.0, aligned=1.0)
    fitted = masks.fit([masks.draw(upright, part, np.random.default_rng(n), 1.0) for n in range(12)], [part] * 12)
    assert abs(fitted.axis - 90) < 12 and fitted.aligned > 0.7
    again = [direction(masks.draw(fitted, part, np.random.default_rng(n), 1.0)) for n in range(40)]
    assert np.mean([abs(turn - 90) < 35 for turn in again]) > 0.7


def test_one_mask_is_taken_for_an_example_and_not_for_all_there_is():
    part, mask = np.ones((300, 300), np.uint8), np.zeros((300, 300), np.uint8)
    cv2.ellipse(mask, (150, 150), (12, 6), 0, 0, 360, 1, -1)
    one, many = masks.fit([mask], [part]), masks.fit([mask] * 30, [part] * 30)
    assert one.area[2] / one.area[0] > 3 > many.area[2] / many.area[0]
    assert one.aligned < many.aligned and 0 < one.edge < 0.5


def test_what_is_known_of_a_class_decides_its_form_and_counts_as_one_mask():
    part, mask = np.ones((300, 300), np.uint8), np.zeros((300, 300), np.uint8)
    mask[280:, 100:140] = 1
    alone, told = masks.fit([mask], [part]), masks.fit([mask], [part], CRACK)
    assert (alone.form, told.form) == ("bite", "walk")
    assert CRACK.area[1] < told.area[1] < alone.area[1]


def test_at_the_border_of_a_picture_cracks_run_inwards_and_breaks_along_it():
    part = np.ones((200, 200), np.uint8)
    deepest: dict[str, list[int]] = {}
    for form in ("walk", "bite"):
        shape = masks.Shape(form, 1.0, (280.0, 300.0, 320.0), (12.0, 12.5, 13.0), 0.05, 200.0)
        deepest[form] = []
        for seed in range(20):
            y, x = np.argwhere(masks.draw(shape, part, np.random.default_rng(seed), 1.0)).T
            deepest[form].append(int(np.minimum(np.minimum(y, 199 - y), np.minimum(x, 199 - x)).max()))
    assert np.quantile(deepest["walk"], 0.2) > 24 and max(deepest["bite"]) < 16
