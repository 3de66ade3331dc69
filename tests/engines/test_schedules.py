from __future__ import annotations

import math

import numpy as np
import pytest
from denoised.engines.schedules import SCHEDULES, angle, distilled, leading, linspace, linspace_to_0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_schedules_descend_and_end_in_zero(name, steps):
    sigmas = SCHEDULES[name](steps)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0
    assert all(a > b for a, b in zip(sigmas, sigmas[1:]))


def test_cosine_is_uniform_in_the_angle_that_the_network_is_told():
    times = [angle(s) for s in SCHEDULES["cosine"](5)]
    np.testing.assert_allclose(np.diff(times), -0.995 / 5)


def test_linear_schedule_is_that_of_ddpm():
    # alpha-bar at the last of 1000 steps is 4.04e-5 (Ho et al. 2020, section 4: "close to zero" signal)
    assert 1 / (1 + SCHEDULES["linear"](10)[0] ** 2) == pytest.approx(4.036e-5, rel=1e-3)


def test_scaled_linear_schedule_is_that_of_latent_diffusion():
    # sigma from 14.6 to 0.029, as everyone quotes it
    sigmas = SCHEDULES["scaled-linear"](1000, spacing=leading)
    assert sigmas[0] == pytest.approx(14.6146, abs=1e-4)
    assert sigmas[-2] == pytest.approx(0.0292, abs=1e-4)


def test_discrete_cosine_follows_its_alpha_bar():
    sigmas = SCHEDULES["discrete-cosine"](1000, spacing=leading)
    for number in (0, 500, 900):
        alpha_bar = (
            math.cos(((number + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        )
        assert 1 / (1 + sigmas[999 - number] ** 2) == pytest.approx(alpha_bar, rel=1e-9)


def test_karras_and_exponential_go_from_the_largest_to_the_smallest_sigma():
    for name in ("karras", "exponential"):
        sigmas = SCHEDULES[name](7)
        assert [sigmas[0], sigmas[-2]] == pytest.approx([80.0, 0.002])
    np.testing.assert_allclose(np.diff(np.log(SCHEDULES["exponential"](7)[:-1])), math.log(0.002 / 80) / 6)
    np.testing.assert_allclose(
        np.diff(np.array(SCHEDULES["karras"](7)[:-1]) ** (1 / 7)), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 6
    )


@pytest.mark.parametrize(
    ("spacing", "four"),
    [(linspace, [999, 749, 500, 250]), (linspace_to_0, [999, 666, 333, 0]), (leading, [750, 500, 250, 0])]
    + [(distilled, [999, 759, 499, 259])],
)
def test_spacings_pick_the_numbers_that_their_papers_step_through(spacing, four):
    assert list(spacing(4, 1000)) == pytest.approx(four)


def test_more_steps_than_a_model_was_distilled_on_are_refused():
    with pytest.raises(ValueError, match="at most 50 steps"):
        distilled(51)
