"""The loop with the stand-in engine: the statistics of what comes out are known in closed form."""

from __future__ import annotations

import pytest
from denoised.engines import noise
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import cosine
from denoised.engines.standin import StandInEngine
from denoised.plugins.kind import Problem
from denoised.plugins.play import solve, walk

FOR_CONSISTENCY_NETWORKS = {"lcm"}
"""Exact for a network that jumps to the end of the flow; the stand-in says the mean of where it may end."""


@pytest.mark.parametrize("name", SAMPLERS.keys() - FOR_CONSISTENCY_NETWORKS)
def test_samples_have_the_mean_and_deviation_of_the_data(name):
    engine = StandInEngine((16,), mean=2.0, std=0.5)
    problem = Problem(noise.batch(1, range(512), 0, (16,)), {}, tuple(range(512)))
    x = solve(walk(problem, engine, cosine(120), name, "v", seed=1))
    assert x.mean() == pytest.approx(2.0, abs=0.02)
    assert x.std() == pytest.approx(0.5, abs=0.03)
