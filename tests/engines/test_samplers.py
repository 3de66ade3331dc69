"""Samplers against the one problem whose answer is known: data that is Gaussian, where the flow has a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from denoised.engines.denoise import Checkpoint, denoise, start
from denoised.engines.denoiser import PREDICTIONS
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import SCHEDULES, angle

MEAN, STD = 0.7, 0.4


def exact_denoiser(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2) in the variance-exploding scale."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def exact_flow(x, sigma):
    """Where the probability-flow ODE carries x from `sigma` to 0 for that data."""
    return MEAN + STD / math.sqrt(STD**2 + sigma**2) * (x - MEAN)


def run(name, steps, x, schedule="cosine"):
    sigmas = SCHEDULES[schedule](steps)
    *_, last = denoise(SAMPLERS[name], exact_denoiser, sigmas, start(x, sigmas))
    return last.x, exact_flow(x * sigmas[0], sigmas[0])


def error_over(name, steps, high=10.0, low=0.1):
    """Largest error at `low` after `steps` steps from `high`, uniform in log sigma, where the orders of the papers hold."""
    sigmas = [high * (low / high) ** (i / steps) for i in range(steps + 1)]
    x = np.linspace(-2, 2, 9) * high
    *_, last = denoise(SAMPLERS[name], exact_denoiser, sigmas, Checkpoint(0, x))
    want = MEAN + math.sqrt((STD**2 + low**2) / (STD**2 + high**2)) * (x - MEAN)
    return np.abs(last.x - want).max()


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_error_falls_with_the_order_of_the_method(name, order):
    errors = np.array([error_over(name, steps) for steps in (40, 80, 160)])
    slopes = np.log2(errors[:-1] / errors[1:])
    assert (abs(slopes - order) < 0.3).all(), (errors, slopes)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_sampler_on_every_schedule_ends_near_the_exact_flow(name, schedule):
    got, want = run(name, 200, np.linspace(-2, 2, 9), schedule)
    np.testing.assert_allclose(got, want, atol=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_gaussian_exact_is_exact_for_unit_gaussian_data_at_any_number_of_steps(steps):
    sigmas = SCHEDULES["cosine"](steps)
    x = np.linspace(-3, 3, 13)
    *_, last = denoise(SAMPLERS["gaussian_exact"], lambda x, s: x / (1 + s * s), sigmas, start(x, sigmas))
    np.testing.assert_allclose(last.x, x * sigmas[0] / math.sqrt(1 + sigmas[0] ** 2), rtol=1e-12)


def test_ddim_with_few_steps_shrinks_unit_gaussian_data_as_the_theory_says():
    sigmas = [math.tan(math.pi / 2 * t) for t in (0.999999, 0.5)] + [0.0]
    *_, last = denoise(SAMPLERS["ddim"], lambda x, s: x / (1 + s * s), sigmas, start(np.ones(1), sigmas))
    assert last.x[0] == pytest.approx(math.cos(math.pi / 4) ** 2, abs=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_going_on_from_a_checkpoint_gives_the_same_bytes_as_never_stopping(name, stop):
    sigmas = SCHEDULES["cosine"](8)
    x = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    whole = list(denoise(SAMPLERS[name], exact_denoiser, sigmas, start(x, sigmas)))
    kept = whole[stop - 1]
    *_, resumed = denoise(SAMPLERS[name], exact_denoiser, sigmas, Checkpoint(kept.step, kept.x.copy(), kept.memory))
    assert resumed.step == 8
    assert resumed.x.tobytes() == whole[-1].x.tobytes()


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_stays_float32(name):
    sigmas = SCHEDULES["cosine"](4)
    x = np.ones((2, 3), np.float32)
    for at in denoise(SAMPLERS[name], exact_denoiser, sigmas, start(x, sigmas)):
        assert at.x.dtype == np.float32


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_eps_v_and_x0_networks_of_the_same_data_denoise_alike(prediction):
    def network(x_vp, sigma):
        alpha, s = math.cos(math.atan(sigma)), math.sin(math.atan(sigma))
        surprise = (x_vp - alpha * MEAN) / (alpha**2 * STD**2 + s**2)
        x0, eps = MEAN + alpha * STD**2 * surprise, s * surprise
        return {"eps": eps, "v": alpha * eps - s * x0, "x0": x0}[prediction]

    x, sigma = np.linspace(-5, 5, 11), 1.7
    np.testing.assert_allclose(PREDICTIONS[prediction](network)(x, sigma), exact_denoiser(x, sigma), rtol=1e-12)


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
