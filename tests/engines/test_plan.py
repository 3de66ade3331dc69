"""A planned step does what the sampler's formula says: both are run, the formula on numpy arrays as it stands."""

from __future__ import annotations

import numpy as np
import pytest
from denoised.engines.denoise import Known, denoise, start
from denoised.engines.denoiser import PREDICTIONS, Guidance, guided
from denoised.engines.host import CallableBound
from denoised.engines.plan import FIRST_FREE, Call, Mix, X, plan, preserving
from denoised.engines.samplers import SAMPLERS, sampler
from denoised.engines.schedules import karras

EVERY = {
    **SAMPLERS,
    "unipc_3": sampler("unipc", order=3),
    "ddim_eta": sampler("ddim", eta=0.5),
    "churned": sampler("heun", s_churn=4),
}
GUIDANCE = [None, Guidance(3.0), Guidance(2.0, 0.3, 8.0), Guidance(1.0)]
SIGMAS = tuple(karras(7))


def with_condition(x, sigma):
    return np.tanh(1.3 * x) + 0.1 * sigma / (1 + sigma)


def without(x, sigma):
    return 0.5 * np.sin(x)


def by_formula(method, prediction, guidance, x, noise):
    """The sampler on float64 arrays, all states in the variance-exploding scale."""
    denoiser = PREDICTIONS[prediction](with_condition)
    if guidance:
        denoiser = guided(denoiser, PREDICTIONS[prediction](without), guidance)
    state, memory, out = x * SIGMAS[0], None, []
    for i in range(len(SIGMAS) - 1):
        state, memory = method(denoiser, state, SIGMAS, i, memory, noise[i])
        out.append(state)
    return out


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_the_loop_does_what_the_formula_says(name, prediction, guidance):
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 3)), rng.standard_normal((len(SIGMAS), 2, 3))
    bound = CallableBound([with_condition, without], x)
    at = start(x, SIGMAS)
    run = denoise(bound, EVERY[name], prediction, SIGMAS, at, lambda step: noise[step - 1], guidance, time=float)
    have = [at.x / preserving(SIGMAS[at.step]) for at in run]
    for a, b in zip(have, by_formula(EVERY[name], prediction, guidance, x, noise), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("guidance", GUIDANCE[:2])
def test_a_mix_reads_nothing_that_it_has_overwritten_and_keeps_to_what_engines_must_offer(name, guidance):
    for step in plan(EVERY[name], "v", SIGMAS, guidance).steps:
        for mix in (action for action in step.actions if isinstance(action, Mix)):
            assert not set(mix.outs[:-1]) & set(mix.ins)
            assert len(set(mix.outs)) == len(mix.outs) <= 4
            assert len(mix.ins) <= 8
            assert [len(row) for row in mix.weights] == [len(mix.ins) + j for j in range(len(mix.outs))]
            assert all(out == X or out >= FIRST_FREE for out in mix.outs)


CALLS = {"heun": 2 * 7 - 1, "churned": 2 * 7 - 1}


@pytest.mark.parametrize("name", EVERY)
def test_a_trajectory_calls_the_network_as_often_as_its_paper_says(name):
    todo = plan(EVERY[name], "v", SIGMAS)
    assert sum(isinstance(action, Call) for step in todo.steps for action in step.actions) == CALLS.get(name, 7)


def test_outside_of_its_interval_guidance_costs_no_call():
    todo = plan(EVERY["ddim"], "v", SIGMAS, Guidance(2.0, 0.3, 8.0))
    asked = [
        action.sigma for step in todo.steps for action in step.actions if isinstance(action, Call) and action.condition == 1
    ]
    assert asked == [sigma for sigma in SIGMAS if 0.3 < sigma <= 8.0]


def test_the_same_question_is_planned_once():
    assert plan(EVERY["unipc_3"], "v", SIGMAS) is plan(sampler("unipc", order=3), "v", SIGMAS)


@pytest.mark.parametrize("name", EVERY)
def test_a_known_region_stays_on_its_path_and_ends_in_the_known_values_to_the_bit(name):
    rng = np.random.default_rng(0)
    x, values = (rng.standard_normal((2, 8)).astype(np.float32) for _ in range(2))
    where = np.zeros_like(x)
    where[:, 3:] = 1
    noise = rng.standard_normal((7, 2, 8)).astype(np.float32)
    known, bound = Known(values, x, where), CallableBound([with_condition], x)
    first = start(x, SIGMAS)
    for at in denoise(bound, EVERY[name], "v", SIGMAS, first, lambda step: noise[step - 1], known=known, time=float):
        sigma = SIGMAS[at.step]
        want = (values + sigma * x) * preserving(sigma)
        np.testing.assert_allclose(at.x[where > 0], want[where > 0], rtol=1e-6, atol=1e-7)
    assert at.x[where > 0].tobytes() == values[where > 0].tobytes()
    free = CallableBound([with_condition], x)
    *_, alone = denoise(free, EVERY[name], "v", SIGMAS, first, lambda step: noise[step - 1], time=float)
    np.testing.assert_array_equal(at.x[where == 0], alone.x[where == 0])
