"""Samplers against problems whose answer is known: Gaussian data, where the flow has a closed form, and a mixture of two."""

from __future__ import annotations

import math

import numpy as np
import pytest
from denoised.engines.denoise import Checkpoint, denoise, start
from denoised.engines.denoiser import PREDICTIONS, Guidance
from denoised.engines.host import CallableBound
from denoised.engines.plan import preserving
from denoised.engines.samplers import SAMPLERS, sampler

MEAN, STD = 0.7, 0.4
UNIPC_3 = sampler("unipc", order=3)
EVERY = {**SAMPLERS, "unipc_3": UNIPC_3, "ddim_eta": sampler("ddim", eta=0.5), "heun_churn": sampler("heun", s_churn=4.0)}
DETERMINISTIC = {name: EVERY[name] for name in ("euler", "heun", "ddim", "dpmpp_2m", "unipc", "unipc_3", "gaussian_exact")}


def gaussian(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2) in the variance-exploding scale."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def mixture(x, sigma):
    """E[x0 | x] for 0.6 N(-1, 0.3^2) + 0.4 N(1.2, 0.5^2)."""
    parts = [(0.6, -1.0, 0.3**2 + sigma**2, 0.3**2), (0.4, 1.2, 0.5**2 + sigma**2, 0.5**2)]
    one, two = (math.log(share / math.sqrt(var)) - (x - mean) ** 2 / (2 * var) for share, mean, var, _ in parts)
    first = 1 / (1 + np.exp(np.clip(two - one, -80, 80)))
    means = [mean + own / var * (x - mean) for _, mean, var, own in parts]
    return first * means[0] + (1 - first) * means[1]


def flow(x, high, low):
    """Where the probability-flow ODE carries x from noise level `high` to `low` for Gaussian data."""
    return MEAN + math.sqrt((STD**2 + low**2) / (STD**2 + high**2)) * (x - MEAN)


def bound(denoiser, x):
    """A network that predicts x0 and is told sigma, over `denoiser` in the variance-exploding scale."""
    return CallableBound([lambda x, sigma: denoiser(x / preserving(sigma), sigma)], x)


def states(method, denoiser, sigmas, x, noise=None):
    """Every state in the variance-exploding scale, from x at sigmas[0] on."""
    at = Checkpoint(0, x * preserving(sigmas[0]))
    given = None if noise is None else lambda step: noise[step - 1]
    run = denoise(bound(denoiser, at.x), method, "x0", sigmas, at, given, time=float)
    return [x, *(at.x / preserving(sigmas[at.step]) for at in run)]


def log_spaced(steps, high=10.0, low=0.1):
    """Uniform in log sigma, where the orders of the papers hold; the jump to 0 that ends it is not looked at."""
    return [*(high * (low / high) ** (i / steps) for i in range(steps + 1)), 0.0]


def error(name, denoiser, steps, want):
    sigmas, x = log_spaced(steps), np.linspace(-2, 2, 9) * 10
    return np.abs(states(EVERY[name], denoiser, sigmas, x)[-2] - want(x)).max()


def orders(errors):
    return np.log2(np.array(errors[:-1]) / errors[1:])


ORDERS = [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3), ("unipc_3", 3), ("gaussian_exact", 1)]
"""UniPC's corrector gives its predictor one order more (Zhao et al. 2023, theorem 3.1); at order 3 its first step, of order 1
and corrected, is what the whole is held back by."""


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_error_falls_with_the_order_of_the_method_on_a_mixture(name, order):
    reference = states(UNIPC_3, mixture, log_spaced(5120), np.linspace(-2, 2, 9) * 10)[-2]
    errors = [error(name, mixture, steps, lambda x: reference) for steps in (160, 320, 640)]
    assert orders(errors)[-1] == pytest.approx(order, abs=0.35), errors


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_at_least_with_the_order_of_the_method_on_a_gaussian(name):
    errors = [error(name, gaussian, steps, lambda x: flow(x, 10.0, 0.1)) for steps in (40, 80, 160)]
    assert (orders(errors) > dict(ORDERS)[name] - 0.3).all(), errors


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_gaussian_exact_is_exact_for_unit_gaussian_data_at_any_number_of_steps(steps):
    sigmas, x = log_spaced(steps), np.linspace(-30, 30, 13)
    for sigma, state in zip(sigmas, states(EVERY["gaussian_exact"], lambda x, s: x / (1 + s * s), sigmas, x)):
        np.testing.assert_allclose(state, x * math.sqrt((1 + sigma**2) / (1 + 100)), rtol=1e-12)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_method_is_exact_where_the_data_is_one_point(name, steps):
    """The denoiser is constant then: whatever is between, the last step ends in it."""
    sigmas, noise = log_spaced(steps - 1) if steps > 1 else [10.0, 0.0], np.ones((steps, 3))
    last = states(EVERY[name], lambda x, s: 0 * x + 0.25, sigmas, np.array([-20.0, 0, 3]), noise)[-1]
    np.testing.assert_allclose(last, 0.25 if name != "gaussian_exact" else last, rtol=1e-12)


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc", "unipc_3", "ddim", "euler"])
def test_exponential_integrators_and_first_order_methods_are_exact_for_a_denoiser_that_is_constant(name):
    sigmas, x = log_spaced(4), np.array([-20.0, 0, 3])
    for sigma, state in zip(sigmas, states(EVERY[name], lambda x, s: 0 * x + 0.25, sigmas, x)):
        np.testing.assert_allclose(state, 0.25 + sigma / 10 * (x - 0.25), rtol=1e-12)


def test_ddim_with_few_steps_shrinks_unit_gaussian_data_as_the_theory_says():
    sigmas = [math.tan(math.pi / 2 * t) for t in (0.999999, 0.5)] + [0.0]
    last = states(EVERY["ddim"], lambda x, s: x / (1 + s * s), sigmas, np.ones(1) * sigmas[0])[-1]
    assert last[0] == pytest.approx(math.cos(math.pi / 4) ** 2, abs=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "ddim_eta", "dpmpp_2m_sde", "heun_churn", "lcm"])
def test_stochastic_methods_keep_the_spread_of_the_data(name):
    sigmas, rng = log_spaced(60, 20.0, 0.01), np.random.default_rng(0)
    x, noise = rng.standard_normal(4000) * 20, rng.standard_normal((61, 4000))
    last = states(EVERY[name], gaussian if name != "lcm" else lambda x, s: flow(x, s, 0), sigmas, x, noise)[-1]
    assert last.mean() == pytest.approx(MEAN, abs=0.04)
    assert last.std() == pytest.approx(STD, rel=0.08)


def test_ddim_with_eta_1_is_ddpm():
    sigmas, rng = log_spaced(6), np.random.default_rng(0)
    x, noise = rng.standard_normal(5) * 10, rng.standard_normal((7, 5))
    for a, b in zip(*(states(m, mixture, sigmas, x, noise) for m in (sampler("ddim", eta=1.0), EVERY["ddpm"]))):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_a_stochastic_method_without_noise_says_so():
    with pytest.raises(ValueError, match="stochastic"):
        states(EVERY["ddpm"], gaussian, log_spaced(3), np.ones(3))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("guidance", [None, Guidance(3.0, 0.2, 5.0)])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_going_on_from_a_checkpoint_gives_the_same_bytes_as_never_stopping(name, guidance, stop):
    sigmas, rng = [*log_spaced(7)], np.random.default_rng(0)
    x, noise = (rng.standard_normal((*n, 3, 5)).astype(np.float32) for n in ((), (8,)))
    networks = [lambda x, sigma: np.tanh(mixture(x, sigma)), lambda x, sigma: 0.5 * np.tanh(x)]

    def run(at):
        used = CallableBound(networks, x)
        return denoise(used, EVERY[name], "v", sigmas, at, lambda step: noise[step - 1], guidance, time=float)

    kept, last = None, None
    for at in run(start(x, sigmas)):
        if at.step == stop:
            kept = Checkpoint(at.step, at.x.copy(), at.memory and tuple(part.copy() for part in at.memory))
        last = at
    assert kept is not None and last is not None
    *_, resumed = run(kept)
    assert resumed.step == len(sigmas) - 1
    assert resumed.x.tobytes() == last.x.tobytes()
    assert resumed.x.dtype == np.float32
    assert np.isfinite(resumed.x).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_eps_v_and_x0_networks_of_the_same_data_denoise_alike(prediction):
    def network(x_vp, sigma):
        alpha, s = math.cos(math.atan(sigma)), math.sin(math.atan(sigma))
        surprise = (x_vp - alpha * MEAN) / (alpha**2 * STD**2 + s**2)
        x0, eps = MEAN + alpha * STD**2 * surprise, s * surprise
        return {"eps": eps, "v": alpha * eps - s * x0, "x0": x0}[prediction]

    x, sigma = np.linspace(-5, 5, 11), 1.7
    np.testing.assert_allclose(PREDICTIONS[prediction](network)(x, sigma), gaussian(x, sigma), rtol=1e-12)
