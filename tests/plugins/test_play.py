"""The loop as job kinds reach it: guidance and known regions come with the problem."""

from __future__ import annotations

import numpy as np
import pytest
from denoised.engines import noise
from denoised.engines.denoise import Known
from denoised.engines.denoiser import Guidance
from denoised.engines.engine import EngineError, TensorSpec
from denoised.engines.host import over_run
from denoised.engines.schedules import cosine
from denoised.plugins.kind import Problem
from denoised.plugins.play import solve, walk

ROWS = (0, 1)


class Level:
    """A network that says x0 = `level`, whatever it sees."""

    provider = "numpy"

    def __init__(self):
        self.inputs = {"x": TensorSpec("x", "float32", ("batch", 4)), "t": TensorSpec("t", "float32", ("batch",))}
        self.inputs["level"] = TensorSpec("level", "float32", ("batch",))
        self.outputs = {"out": self.inputs["x"]}

    def run(self, feeds):
        return {"out": np.broadcast_to(feeds["level"][:, None], feeds["x"].shape)}

    def bind(self, x, conditions):
        return over_run(self, x, conditions)

    def close(self):
        pass


def level(value):
    return {"level": np.full(2, value, np.float32)}


def test_guidance_goes_beyond_the_condition_by_its_scale():
    problem = Problem(noise.batch(1, ROWS, 0, (4,)), level(3.0), ROWS, without=level(1.0))
    got = solve(walk(problem, Level(), cosine(4), "dpmpp_2m", "x0", guidance=Guidance(2.5)))
    np.testing.assert_allclose(got, 1 + 2.5 * (3 - 1), rtol=1e-6)


def test_guidance_of_a_problem_that_cannot_be_guided_is_an_error_that_says_so():
    problem = Problem(noise.batch(1, ROWS, 0, (4,)), level(3.0), ROWS)
    with pytest.raises(EngineError, match="asks for guidance"):
        solve(walk(problem, Level(), cosine(4), "ddim", "x0", guidance=Guidance(2.5)))


def test_a_known_region_ends_in_its_values_and_the_rest_in_the_network_s():
    x, where = noise.batch(1, ROWS, 0, (4,)), np.array([[1, 0, 0, 1], [0, 0, 0, 1]], np.float32)
    values = noise.batch(2, ROWS, 0, (4,))
    got = solve(walk(Problem(x, level(3.0), ROWS, known=Known(values, x, where)), Level(), cosine(4), "ddpm", "x0", seed=1))
    assert got[where > 0].tobytes() == values[where > 0].tobytes()
    np.testing.assert_allclose(got[where == 0], 3.0, rtol=1e-6)
