import numpy as np
import pytest
from denoised.demo import surface


def test_the_same_seed_and_number_give_the_same_bytes():
    assert (surface.frame(3, 5) == surface.frame(3, 5)).all()


@pytest.mark.parametrize("seed", range(8))
def test_every_product_is_a_lit_part_on_a_dark_fixture(seed):
    image = surface.frame(seed, 0, 320, 240)
    assert image.shape == (240, 320) and image.dtype == np.uint8
    centre, corner = image[100:140, 130:190], image[:8, :8]
    assert centre.mean() > 3 * corner.mean() and corner.mean() > 0
    assert (image == 255).mean() < 0.02  # the camera is not blinded
    assert centre.std() > 2  # the finish leaves marks


def test_workpieces_of_one_product_differ_in_texture_but_not_in_outline():
    one, other = (surface.frame(1, n, 320, 240).astype(int) for n in (0, 1))
    assert (np.abs(one - other) > 2).mean() > 0.2
    outlines = [image > 40 for image in (one, other)]
    assert (outlines[0] != outlines[1]).mean() < 0.2


def test_an_unknown_finish_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="ground, turned, pressed, cast"):
        surface.texture(np.random.default_rng(0), "polished", 32, 32)
