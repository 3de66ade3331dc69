"""The door for comparison with other samplers: what it promises, without any other implementation at hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from denoised.bench.judges.trajectory import CONTINUOUS, DISCRETE, METHODS, run, sigmas_of

MEAN, STD = 0.7, 0.4
SCHEDULES = [*DISCRETE, *CONTINUOUS]


def network(prediction, seen=None):
    """The exact answer for data from N(MEAN, STD^2)."""

    def answer(x, sigma):
        if seen is not None:
            seen.append((x.copy(), sigma))
        clean = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)
        eps, alpha = (x - clean) / sigma, 1 / math.sqrt(1 + sigma**2)
        return {"eps": eps, "x0": clean, "v": alpha * eps - sigma * alpha * clean}[prediction]

    return answer


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 5])
def test_it_gives_every_state_from_the_start_on_and_asks_at_the_levels_of_the_schedule(method, schedule, steps):
    rng = np.random.default_rng(0)
    seen: list[tuple[np.ndarray, float]] = []
    x, noise = rng.standard_normal((2, 3)), rng.standard_normal((steps, 2, 3))
    states, sigmas = run(method, schedule, "v", network("v", seen), x, steps, noise), sigmas_of(method, schedule, steps)
    assert len(states) == steps + 1
    assert all(state.dtype == np.float64 and state.shape == x.shape and np.isfinite(state).all() for state in states)
    np.testing.assert_array_equal(states[0], x * sigmas[0])
    assert {sigma for _, sigma in seen} == set(sigmas[:-1])
    np.testing.assert_allclose(seen[0][0], states[0], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_prediction_makes_no_difference(method, schedule):
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 3)), rng.standard_normal((6, 2, 3))
    one, two, three = (run(method, schedule, p, network(p), x, 6, noise) for p in ("eps", "v", "x0"))
    for a, b, c in zip(one, two, three):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(a, c, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", ["euler", "heun", "ddim", "dpmpp_2m", "unipc", "unipc_3"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_methods_that_solve_the_flow_come_near_its_end(method, schedule):
    x = np.linspace(-2, 2, 9)
    sigma = sigmas_of(method, schedule, 200)[0]
    want = MEAN + STD / math.sqrt(STD**2 + sigma**2) * (x * sigma - MEAN)
    np.testing.assert_allclose(run(method, schedule, "eps", network("eps"), x, 200)[-1], want, atol=0.03)


def test_noise_is_used_in_order():
    x, noise = np.ones(1), np.arange(1.0, 4.0)[:, None]
    sigmas = sigmas_of("lcm", "linear", 3)
    states = run("lcm", "linear", "x0", lambda x, sigma: np.zeros(1), x, 3, noise)
    np.testing.assert_allclose(np.ravel(states), [sigmas[0], sigmas[1] * 1, sigmas[2] * 2, 0], atol=1e-12)
