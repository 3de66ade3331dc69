"""The operating point of a job: from the board's calibration, at least as good as asked for, the same to the end."""

from __future__ import annotations

import dataclasses
import time

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon import calibration
from denoised.daemon.board.board import find_board
from denoised.daemon.calibration import Calibration, Method, fingerprint
from denoised.daemon.core.frontier import Quality, Speed, frontier, points
from denoised.engines.bundle import read_bundle

CAREFUL = {"expected_uptime": 0.05, "write_budget_mb_per_day": 10_000_000}


def calibrate(daemon, models, qualities, threads=(1,)):
    """Leaves a calibration of the toy model as `denoised calibrate` would; `qualities`: steps -> distance."""
    bundle = read_bundle(models / "toy-model")
    config = typed.read(daemon.settings, Config)
    board = find_board(config.board)
    here = fingerprint(config, bundle, board.traits.name, board.read(time.monotonic()).mode)
    measured = tuple(Quality("fp32", "ddim", steps, distance, 0.1) for steps, distance in qualities.items())
    speeds = tuple(Speed("fp32", "ddim", 1, n, 1.0 / n, 3.0 + 1.5 * n) for n in threads)
    made = Calibration.empty(bundle.manifest, here, Method("t", "e", "q"), 3.0)
    best = frontier(points(measured, speeds))
    made = dataclasses.replace(made, qualities=measured, speeds=speeds, frontier=best, complete=True)
    calibration.store(calibration.path_of(config, bundle), made)


@pytest.fixture
def calibrated(make_daemon, toy_models):
    """5 steps are rough, 20 as good as the 50 that ship, 10 in between."""
    daemon = make_daemon(start=False, checkpoints=CAREFUL)
    calibrate(daemon, toy_models, {5: 0.5, 10: 0.2, 20: 0.05, 50: 0.05})
    daemon.start()
    return daemon


def run(daemon, name, **request):
    daemon.submit("toy", {"id": name, "seed": 1, "params": {"count": 2}, **request})
    return daemon.result(name)


def test_without_a_calibration_the_models_first_point_runs(daemon):
    assert run(daemon, "a")["operating_point"]["steps"] == 50


def test_a_job_runs_at_the_cheapest_point_that_is_as_good_as_the_one_that_ships(calibrated):
    assert run(calibrated, "a")["operating_point"]["steps"] == 20


@pytest.mark.parametrize(("quality", "steps"), [(0.0, 5), (0.5, 5), (0.6, 10), (0.8, 10), (0.9, 20), (1.0, 20)])
def test_a_quality_floor_lets_it_choose_a_cheaper_point_and_none_below(calibrated, quality, steps):
    assert run(calibrated, "q", quality=quality)["operating_point"]["steps"] == steps


def test_a_quality_out_of_range_is_refused_and_names_its_field(calibrated):
    error = run(calibrated, "bad", quality=1.5)["error"]
    assert (error["code"], error["field"]) == ("bad-request", "quality")


def test_a_job_that_has_a_checkpoint_ends_at_its_point_though_the_calibration_is_another_after_the_restart(
    calibrated, toy_models
):
    whole = run(calibrated, "whole", params={"count": 60})["artifacts"][0]["sha256"]
    calibrated.submit("toy", {"id": "cut", "seed": 1, "params": {"count": 60}})
    calibrated.wait_for("jobs/cut/event", lambda v: v.get("item", 0) >= 20)
    calibrated.kill()
    calibrate(calibrated, toy_models, {5: 0.05, 50: 0.05})
    calibrated.start()
    result = calibrated.result("cut")
    assert result["operating_point"]["steps"] == 20
    assert result["resumed_steps"] > 0
    assert result["artifacts"][0]["sha256"] == whole
    assert run(calibrated, "fresh")["operating_point"]["steps"] == 5


def test_jobs_of_different_thread_counts_follow_each_other_in_one_worker(make_daemon, toy_models):
    daemon = make_daemon(start=False, engine={"threads": 2})
    calibrate(daemon, toy_models, {50: 0.05}, threads=(2,))
    daemon.start()
    assert run(daemon, "two")["operating_point"]["threads"] == 2
