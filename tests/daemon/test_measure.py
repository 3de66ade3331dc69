from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon import measure
from denoised.daemon.board.energy import Meter
from denoised.daemon.board.generic import Generic
from denoised.daemon.measure import Measurer, Played
from denoised.engines.bundle import SHIPPED, OperatingPoint, read_bundle
from denoised.engines.denoiser import Guidance
from denoised.engines.engine import EngineRunError
from denoised.plugins.kind import load_kinds
from denoised.plugins.sensor_imputation.kind import SensorImputation

ONE_THREAD = typed.read({"engine": {"threads": 1}}, Config)


@pytest.fixture
def measurer(monkeypatch, tmp_path):
    """Of the shipped imputer, impatient: these tests look at what is measured, not at how exactly."""
    values = [[None if (i + k) % 5 == 0 else float(i * k % 7) for k in range(2)] for i in range(72)]
    small = {"tags": ["a", "b"], "values": values, "samples": 4}
    monkeypatch.setattr(SensorImputation, "self_test", lambda self, bundle: small)
    monkeypatch.setattr(measure, "REFERENCE_STEPS", 8)
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    bundle = read_bundle(SHIPPED / "plant-imputer")
    measurer = Measurer(ONE_THREAD, load_kinds()[bundle.manifest.kind], bundle, Meter(Generic(tmp_path)))
    yield measurer
    measurer.close()


def test_more_steps_come_nearer_to_the_reference_which_is_at_no_distance_from_itself(measurer):
    far = [measurer.quality(0, steps).distance for steps in (1, 4, 8)]
    assert far[0] > far[1] > far[2] == 0.0


def test_the_same_point_has_the_same_distance_each_time(measurer):
    assert measurer.quality(0, 2).distance == measurer.quality(0, 2).distance


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("surface-defects", OperatingPoint("int8", "dpmpp_2m", 1, 8)),
        ("plant-imputer", OperatingPoint("fp32", "gaussian_exact", 1, 8)),
    ],
)
def test_the_self_test_fills_the_largest_batch_and_goes_the_kinds_own_way(name, point, tmp_path):
    bundle = read_bundle(SHIPPED / name)
    measurer = Measurer(ONE_THREAD, load_kinds()[bundle.manifest.kind], bundle, Meter(Generic(tmp_path)))
    played = measurer.play(point)
    measurer.close()
    assert len(played.results[0]) == 8
    assert played.rows >= 16  # a long crack takes several windows
    assert played.total_s > played.loop_s > 0


def test_a_speed_says_what_a_step_of_the_batch_takes_and_draws(measurer):
    speed = measurer.speed(0, 2, 1)
    assert (speed.variant, speed.sampler, speed.batch, speed.threads) == ("fp32", "gaussian_exact", 2, 1)
    assert speed.step_ms > 0
    assert speed.power_w >= 3.0


def test_a_batch_larger_than_the_self_test_gives_is_filled_by_repeating(measurer):
    measurer.play(OperatingPoint("fp32", "gaussian_exact", 1, 8))
    assert measurer.speed(0, 20, 1).batch == 20


def test_a_variant_that_gives_no_numbers_is_an_error_that_names_it(measurer, monkeypatch):
    monkeypatch.setattr(measure, "distance", lambda played, reference: float("nan"))
    with pytest.raises(EngineRunError, match="fp32 with gaussian_exact, 1 steps"):
        measurer.quality(0, 1)


def test_distance_is_relative_to_the_size_of_the_reference():
    a, b = np.full((2, 3), 3.0, np.float32), np.full((2, 3), 2.0, np.float32)
    assert measure.distance(Played((a, a), 4, 0, 0), Played((b, b), 4, 0, 0)) == pytest.approx(0.5)


def test_steps_and_batches_lie_within_what_the_bundle_was_validated_with():
    points = [OperatingPoint(steps=s, batch=b) for s, b in ((8, 6), (5, 1), (16, 1))]
    assert measure.steps_to_try(points) == [5, 6, 8, 12, 16]
    assert measure.batches_to_try(points) == [1, 2, 4, 6]


def test_threads_are_those_of_jobs_first_and_no_others_where_the_config_fixes_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert measure.threads_to_try(Config()) == [5, 1, 2, 4, 6]
    assert measure.threads_to_try(typed.read({"engine": {"threads": 3}}, Config)) == [3]


@pytest.mark.parametrize("name", [p.name for p in SHIPPED.iterdir()])
def test_every_kind_has_a_self_test_that_it_accepts_itself(name):
    bundle = read_bundle(SHIPPED / name)
    kind = load_kinds()[bundle.manifest.kind]
    request: Any = typed.read(kind.self_test(bundle), kind.params)
    largest = max(p.batch for p in bundle.manifest.operating_points)
    assert kind.check(request, measure.site_of_one(kind, bundle)) >= largest
    assert kind.self_test(bundle) == kind.self_test(bundle)


def test_a_way_is_variant_sampler_the_samplers_choices_and_guidance_whatever_the_steps(measurer):
    """A point with other choices of its sampler is another way: its figures are not those of the first."""
    eta = OperatingPoint(sampler="ddim", sampler_args={"eta": 1.0})
    guided = OperatingPoint(sampler="ddim", guidance=Guidance(3.0))
    measurer.shipped = (OperatingPoint(sampler="ddim", steps=4), replace(eta, steps=2), guided, eta)
    assert [measurer.way_of(p) for p in measurer.shipped] == [0, 1, 2, 1]
    assert measurer.way_of(OperatingPoint("int8", "ddim")) == -1


def test_a_samplers_own_choices_are_measured_with_it(measurer):
    """Ancestral noise takes it elsewhere than none, from the same seed."""
    measurer.shipped = (OperatingPoint(sampler="ddim"), OperatingPoint(sampler="ddim", sampler_args={"eta": 1.0}))
    plain, noisy = (measurer.quality(shipped, 4) for shipped in (0, 1))
    assert (plain.shipped, noisy.shipped) == (0, 1)
    assert abs(plain.distance - noisy.distance) > 0.01
    assert measurer.speed(1, 2, 1).shipped == 1


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.1, 1.0, 1.0))
    assert "daemon is running" in (told := measure.disturbance() or "") or "load 3.1 on 4 cores" in told


def test_a_worker_on_this_machine_is_told(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    command = [sys.executable, "-c", "input()", "-m", "denoised.daemon.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert "a daemon is running" in (measure.disturbance() or "")
        process.communicate(b"\n")
