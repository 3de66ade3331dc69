from __future__ import annotations

import dataclasses

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.calibration import Calibration, Fingerprint, Method, path_of, store
from denoised.daemon.core.frontier import Quality, Speed, frontier, points
from denoised.daemon.points import Offers
from denoised.engines.bundle import SHIPPED, read_bundle

IMPUTER = read_bundle(SHIPPED / "plant-imputer")


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """What the imputer can be run at on a board where a step of its first point took 2 ms and each is as far off as told."""
    here = Fingerprint("b", "a", 1, 1000, "onnxruntime on cpu", "r", IMPUTER.sha256, 0, None)
    monkeypatch.setattr("denoised.daemon.points.fingerprint", lambda *_: here)
    shipped = [(i, p) for i, p in enumerate(IMPUTER.manifest.operating_points) if p.steps]
    first = shipped[0][1]
    qualities = tuple(Quality(first.variant, first.sampler, p.steps, 0.1 / p.steps, 0.1) for _, p in shipped)
    speeds = (Speed(first.variant, first.sampler, first.batch, 1, 16.0, 4.5),)

    def made(**policy):
        config = typed.read({"state_dir": str(tmp_path), "policy": policy}, Config)
        empty = Calibration.empty(IMPUTER.manifest, here, Method("t", "e", "q"), 3.0)
        best = frontier(points(qualities, speeds))
        store(path_of(config, IMPUTER), dataclasses.replace(empty, qualities=qualities, speeds=speeds, frontier=best))
        return Offers(config, "b", None).of(IMPUTER)

    return made


def test_rungs_without_steps_are_offered_by_what_the_model_says_of_them_beside_its_first_point(offer):
    found = {(IMPUTER.manifest.operating_points[p.shipped].variant, p.steps): p for p in offer().points}
    head, closed, one = found["fp32", 0], found["closed-form", 0], found["fp32", 1]
    assert closed.sample_s < head.sample_s < one.sample_s
    assert closed.quality < head.quality
    assert closed not in offer().acceptable(None) and head in offer().acceptable(None)
    assert closed in offer().acceptable(0.5)


def test_a_governor_that_is_off_has_the_first_point_alone(offer):
    (only,) = offer(governor="off").points
    assert (only.shipped, only.steps, only.quality) == (0, IMPUTER.manifest.operating_points[0].steps, None)
