"""The loop with the stand-in engine: the statistics of what comes out are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from denoised.engines import noise
from denoised.engines.denoise import denoise, start
from denoised.engines.denoiser import from_v
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import angle, cosine
from denoised.engines.standin import StandInEngine


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_have_the_mean_and_deviation_of_the_data(name):
    engine = StandInEngine((16,), mean=2.0, std=0.5)
    denoiser = from_v(lambda x, s: engine.run({"x": x, "t": np.full(len(x), angle(s), np.float32)})["out"])
    sigmas = cosine(40)
    *_, last = denoise(SAMPLERS[name], denoiser, sigmas, start(noise.batch(1, range(512), 0, (16,)), sigmas))
    assert last.x.mean() == pytest.approx(2.0, abs=0.02)
    assert last.x.std() == pytest.approx(0.5, abs=0.03)
