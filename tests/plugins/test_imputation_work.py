from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from denoised.config.typed import read
from denoised.demo.plant import TAGS, Plant
from denoised.engines.bundle import SHIPPED, OperatingPoint, read_bundle
from denoised.engines.engine import open_engine
from denoised.engines.samplers import SAMPLERS
from denoised.plugins.kind import Problem, Site, Task
from denoised.plugins.play import drive, solve, trajectory
from denoised.plugins.sensor_imputation.kind import KIND
from denoised.plugins.sensor_imputation.params import ImputationParams
from denoised.plugins.sensor_imputation.site import learn
from denoised.plugins.sensor_imputation.stored import Stored, store

BUNDLE = read_bundle(SHIPPED / "plant-imputer")
POINT = next(p for p in BUNDLE.manifest.operating_points if p.steps == 2)
NETWORKS = {name: open_engine(BUNDLE.file(file)) for name, file in BUNDLE.manifest.variants["fp32"].items()}


def run(params, seed=7, point=POINT, problems=None):
    """The job as the worker plays it."""
    task = Task("t", seed, Path("."), BUNDLE, point, NETWORKS.__getitem__, Site())

    def solved(problem):
        if problems is not None:
            problems.append(problem)
        return solve(trajectory(problem, task))

    return drive(KIND.work(read(params, ImputationParams), task), solved).output


def press(rows=192, seed=1):
    return [list(r.truth) for r in Plant(seed).rows(rows)]


def request(values, **more):
    return {"tags": [f"s{k}" for k in range(len(values[0]))], "values": values, **more}


def holed(values, share=0.2, seed=0):
    lost = np.random.default_rng(seed).random((len(values), len(values[0]))) < share
    return [[None if gone else v for v, gone in zip(row, g)] for row, g in zip(values, lost.tolist())]


def test_measured_numbers_come_back_untouched_to_the_last_bit():
    rng = np.random.default_rng(0)
    values = holed((rng.standard_normal((70, 3)) * [1e-12, 1, 1e17]).tolist())
    values[0] = [1, 2, 3]  # whole numbers stay whole
    output = json.loads(json.dumps(run(request(values))))
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            assert output["imputed"][i][j] is (value is None)
            for table in (output["values"], *output["quantiles"].values()):
                if value is not None:
                    assert repr(table[i][j]) == repr(value)


@pytest.mark.parametrize("rows", [1, 2, 23, 24, 47, 48, 49, 71, 72, 97, 200])
def test_any_length_is_answered_in_full(rows):
    values = holed(press(rows), 0.3)
    values[0][0] = 20.0
    output = run(request(values))
    for table in (output["values"], *output["quantiles"].values()):
        assert np.shape(table) == (rows, len(TAGS))
        assert np.isfinite(np.array(table, float)).all()


@pytest.mark.parametrize("tags", [1, 2, 16, 17, 40])
def test_any_number_of_tags_is_answered_in_full(tags):
    rng = np.random.default_rng(tags)
    common = np.cumsum(rng.standard_normal(60))
    values = holed((common[:, None] + rng.standard_normal((60, tags))).tolist())
    output = run(request(values))
    assert np.isfinite(np.array(output["values"], float)).all()
    assert output["uncertain"] == []


def test_quantiles_ascend_and_hold_the_value_between_them():
    output = run(request(holed(press(), 0.4), quantiles=[0.9, 0.1, 0.5]))
    low, middle, high = (np.array(output["quantiles"][q]) for q in ("0.1", "0.5", "0.9"))
    assert (low <= middle).all() and (middle <= high).all()
    assert np.array_equal(middle, np.array(output["values"]))


def test_the_same_seed_gives_the_same_answer_and_another_seed_another():
    asked = request(holed(press(100)))
    assert run(asked, seed=3) == run(asked, seed=3)
    assert run(asked, seed=3)["values"] != run(asked, seed=4)["values"]


def test_batch_neighbours_do_not_matter_beyond_rounding():
    asked = request(holed(press(192)))
    alone = run(asked, point=OperatingPoint(POINT.variant, POINT.sampler, POINT.steps, 1))
    together = run(asked, point=OperatingPoint(POINT.variant, POINT.sampler, POINT.steps, 8))
    assert np.allclose(np.array(alone["values"]), np.array(together["values"]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.keys() - {"lcm"}))  # which is for networks that jump to the end
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_every_sampler_answers_near_the_truth(sampler, steps):
    truth = np.array(press(144))
    values = holed(truth.tolist(), 0.15)
    output = run(request(values), point=OperatingPoint(POINT.variant, sampler, steps, 4))
    off = np.abs(np.array(output["values"]) - truth) / truth.std(0)
    assert off[np.array(output["imputed"])].mean() < 0.35


def test_imputation_is_better_than_a_straight_line():
    truth = np.array(press(192))
    lost = np.zeros(truth.shape, bool)
    rng = np.random.default_rng(5)
    for k in range(truth.shape[1]):
        for at in rng.integers(0, 180, 3):
            lost[at : at + rng.integers(3, 12), k] = True
    values = [[None if gone else v for v, gone in zip(row, g)] for row, g in zip(truth.tolist(), lost.tolist())]
    line = np.array([np.interp(np.arange(192), np.flatnonzero(~g), c[~g]) for c, g in zip(truth.T, lost.T)]).T
    off = np.abs(np.array(run(request(values))["values"]) - truth) / truth.std(0)
    assert off[lost].mean() < 0.6 * (np.abs(line - truth) / truth.std(0))[lost].mean()


def test_the_band_holds_most_of_the_truth():
    truth = np.array(press(192, seed=9))
    output = run(request(holed(truth.tolist(), 0.3, seed=9)))
    lost = np.array(output["imputed"])
    low, high = (np.array(output["quantiles"][q]) for q in ("0.05", "0.95"))
    assert 0.75 < ((low <= truth) & (truth <= high))[lost].mean() <= 1


def test_there_is_no_jump_where_windows_meet():
    rng, t = np.random.default_rng(2), np.arange(240)
    truth = np.stack([np.sin(t / 15), np.cos(t / 15)], 1) + 0.01 * rng.standard_normal((240, 2))
    values = truth.tolist()
    for row in values[60:84]:
        row[0] = None
    filled = np.array(run(request(values))["values"])[60:84, 0]
    assert np.abs(np.diff(filled)).max() < 0.25


def test_a_silent_tag_is_answered_and_marked_uncertain():
    values = press(100)
    for row in values:
        row[1] = None
    output = run(request(values))
    assert output["uncertain"] == ["s1"]
    assert np.isfinite(np.array(output["values"], float)).all()
    width = np.array(output["quantiles"]["0.95"])[:, 1] - np.array(output["quantiles"]["0.05"])[:, 1]
    assert (width > 10).all()  # the others lie between 0.6 and 46


def test_a_single_measurement_is_enough():
    output = run(request([[None, None], [None, 5.5], [None, None]]))
    assert output["uncertain"] == ["s0"]
    assert output["values"][1][1] == 5.5
    assert np.isfinite(np.array(output["values"], float)).all()


def test_a_constant_tag_stays_constant():
    values = holed([[7.25, float(i % 5)] for i in range(80)])
    assert {row[0] for row in run(request(values))["values"]} == {7.25}


@pytest.mark.parametrize("scale", [1e-308, 1e-30, 1e30, 1e300, 8e305])
def test_any_magnitude_is_answered_without_a_warning(scale):
    values = holed([[v * scale for v in row] for row in press(60)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = run(request(values))
    assert np.isfinite(np.array(output["values"], float)).all()


def test_extremes_of_both_signs_stay_finite():
    values = holed([[1.7e308 * (-1) ** i, 1.0 * i] for i in range(60)])
    output = run(request(values))
    for table in (output["values"], *output["quantiles"].values()):
        assert np.isfinite(np.array(table, float)).all()


def test_nothing_missing_needs_no_network():
    problems: list[Problem] = []
    output = run(request(press(96)), problems=problems)
    assert problems == []
    assert output["values"] == press(96)


def test_only_windows_with_gaps_are_computed():
    values: list[list[float | None]] = [list(row) for row in press(192)]
    problems: list[Problem] = []
    values[-1][2] = values[-2][2] = None
    run(request(values), problems=problems)
    assert [p.x.shape for p in problems] == [(1, 32, 6, 48)]


def test_time_and_period_are_given_back():
    output = run(request([[1.0, None]] * 3, start="2026-11-22T10:15:30.250Z", period_ms=200))
    assert output["start"] == "2026-11-22T10:15:30.250Z"
    assert output["period_ms"] == 200
    assert "start" not in run(request([[1.0, None]] * 3))


def test_items_of_all_problems_are_the_items_that_check_announced():
    values = holed(press(240), 0.01)
    problems: list[Problem] = []
    run(request(values), problems=problems)
    site = Site(models={"sensor-imputation": (BUNDLE,)})
    assert sum(len(p.items) for p in problems) == KIND.check(read(request(values), ImputationParams), site)


CLOSED_FORM, HEAD = (
    p for v in ("closed-form", "fp32") for p in BUNDLE.manifest.operating_points if (p.variant, p.steps) == (v, 0)
)


@pytest.mark.parametrize("point", [CLOSED_FORM, HEAD], ids=["closed form", "quantile head"])
def test_every_rung_without_steps_answers_near_the_truth_with_ascending_quantiles(point):
    truth = np.array(press(144))
    output = run(request(holed(truth.tolist(), 0.15)), point=point)
    lost = np.array(output["imputed"])
    off = np.abs(np.array(output["values"]) - truth) / truth.std(0)
    assert off[lost].mean() < 0.35
    low, high = (np.array(output["quantiles"][q]) for q in ("0.05", "0.95"))
    assert (low <= high).all()
    assert 0.7 < ((low <= truth) & (truth <= high))[lost].mean() <= 1


def test_the_closed_form_opens_no_network_and_stops_between_batches_all_the_same():
    opened: list[str] = []

    def network(name):
        opened.append(name)
        return NETWORKS[name]

    params = read(request(holed(press(400))), ImputationParams)
    task = Task("t", 7, Path("."), BUNDLE, CLOSED_FORM, network, Site())
    problems: list[Problem] = []

    def solved(problem):
        problems.append(problem)
        return solve(trajectory(problem, task))

    outcome = drive(KIND.work(params, task), solved)
    assert opened == []
    assert len(problems) > 1 and all(p.x.size == 0 for p in problems)
    assert outcome.output["calibration"] is None


def test_a_stored_calibration_answers_better_than_the_requests_own_rows_and_is_named(tmp_path):
    history, truth = np.array(press(2000, seed=3)), np.array(press(48, seed=4))
    made = Stored(TAGS, None, BUNDLE.sha256, learn([history], NETWORKS["encoder"]))
    store(tmp_path / "press.npz", made)
    values = holed(truth.tolist(), 0.5)
    off = []
    for site in (Site(), Site(calibrations=tmp_path)):
        task = Task("t", 7, Path("."), BUNDLE, HEAD, NETWORKS.__getitem__, site)
        work = KIND.work(read({"tags": TAGS, "values": values}, ImputationParams), task)
        output = drive(work, lambda p: p.x).output
        off.append(np.abs(np.array(output["values"]) - truth)[np.array(output["imputed"])].mean())
    assert output["calibration"] == {"name": "press", "rows": 2000}
    assert off[1] < off[0]


def test_a_damaged_calibration_costs_a_warning_and_not_the_job(tmp_path, caplog):
    (tmp_path / "press.npz").write_bytes(b"nothing of use")
    task = Task("t", 7, Path("."), BUNDLE, HEAD, NETWORKS.__getitem__, Site(calibrations=tmp_path))
    output = drive(KIND.work(read(request(holed(press(60))), ImputationParams), task), lambda p: p.x).output
    assert output["calibration"] is None
    assert "press.npz: damaged" in caplog.text and "run 'denoised calibrate-sensors' again" in caplog.text
