"""What a site learns of its sensors: bands by masking history, refreshed, stored, found again; by the shipped network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.engines.engine import open_engine
from denoised.plugins.kind import Site
from denoised.plugins.play import drive
from denoised.plugins.sensor_imputation import response, site, stored
from denoised.plugins.sensor_imputation.gaussian import LENGTH, calibrate, in_units, standardise
from denoised.plugins.sensor_imputation.quantiles import KNOTS, LEVELS
from denoised.plugins.sensor_imputation.response import CLASSES, Response, gap_classes
from denoised.plugins.sensor_imputation.series import Way, impute

BUNDLE = read_bundle(SHIPPED / "plant-imputer")
ENCODER = open_engine(BUNDLE.file("encoder.onnx"))
TAGS = ("pressure", "flow", "speed")
DAY = 24


def history(rows=1600, seed=0, row=0, heavy=False):
    """Three tags of one factor with a daily cycle; heavy: measuring noise of rare, large errors."""
    rng, t = np.random.default_rng(seed), row + np.arange(rows)
    factor = np.sin(2 * np.pi * t / DAY) + np.convolve(rng.standard_normal(rows), np.ones(6) / 6, "same")
    noise = rng.standard_t(1.6, (rows, 3)).clip(-30, 30) if heavy else rng.standard_normal((rows, 3))
    return factor[:, None] * [1.0, -2.0, 0.5] + 0.3 * noise + [10.0, 50.0, -3.0]


@pytest.fixture(scope="module")
def parts():
    return site.learn([history()], ENCODER)


@pytest.fixture
def kept(parts, tmp_path):
    made = stored.Stored(TAGS, 1000.0, BUNDLE.sha256, parts)
    stored.store(tmp_path / "line1.npz", made)
    return tmp_path


def answers(part, windows, way, response):
    """Quantiles (W, 19, LENGTH, K) in the plant's units of windows with holes."""
    out = np.repeat(windows[:, None], len(LEVELS), 1)
    for b, window in enumerate(windows):

        def take(at, answer, b=b):
            out[b, :, at : at + answer.shape[1]] = in_units(answer, part.calibration)

        drive(impute(part.calibration, response, standardise(window, part.calibration), way, 0, b, take), lambda p: p.x)
    return out


def held_out(seed, heavy):
    truth = history(LENGTH * 30, seed, heavy=heavy).reshape(30, LENGTH, 3)
    rng = np.random.default_rng(seed)
    missing = np.stack([response.gaps_of(response.PATTERNS[i % 6], 3, rng) for i in range(30)])
    return truth, missing


def test_bands_learnt_by_masking_hold_what_they_promise_where_the_gaussians_own_do_not():
    part = site.learn([history(2400, heavy=True)], ENCODER)[0]
    truth, missing = held_out(5, heavy=True)
    holed = np.where(missing, np.nan, truth)

    def inside(way, how):
        q = answers(part, holed, way, how)
        return ((q[:, 0] <= truth) & (truth <= q[:, -1]))[missing].mean()

    bare, learnt = inside(Way(None, LEVELS), Response.none(3)), inside(Way(None, LEVELS), part.gaussian)
    assert bare > 0.94
    assert 0.84 < learnt < 0.94
    assert 0.84 < inside(Way(ENCODER, LEVELS), part.network) < 0.94


def test_on_the_masked_history_no_class_of_gaps_is_answered_worse_than_by_the_gaussian():
    gaps = response._masked([history(1200)], ENCODER, 0)
    assert gaps is not None
    _, network = response.learn([history(1200)], ENCODER)
    for kind in np.unique(gaps.kind).tolist():
        mine = gaps.kind == kind
        assert response._loss(gaps, mine, network.blend[kind], 3) <= response._loss(gaps, mine, 0.0, 3)


def test_nothing_is_changed_where_nothing_is_learnt():
    rng = np.random.default_rng(0)
    missing = rng.random((LENGTH, 3)) < 0.3
    knots = np.sort(rng.standard_normal((int(missing.sum()), 19)), 1)
    assert np.allclose(Response.none(3).knots(knots, missing), knots, atol=1e-6)


def test_quantiles_ascend_whatever_is_learnt(parts):
    missing = response.gaps_of("point 0.5", 3, np.random.default_rng(1))
    knots = np.tile(np.array(KNOTS), (int(missing.sum()), 1))
    assert (np.diff(parts[0].network.knots(knots, missing), axis=1) > 0).all()


def test_gaps_are_classed_by_distance_and_by_whether_the_others_are_silent():
    missing = np.zeros((LENGTH, 3), bool)
    missing[5, 0] = missing[10:20, 1] = missing[:, 2] = True
    missing[30:40] = True
    kinds = gap_classes(missing)
    assert (kinds[5, 0], kinds[10, 1], kinds[12, 1], kinds[15, 1], kinds[5, 2]) == (0, 0, 1, 2, 3)
    assert kinds[25, 2] == 3
    assert set(kinds[30:40, 0]) == {4, 5, 6}


def test_a_history_too_short_to_hold_a_part_out_teaches_no_widths():
    part = site.learn([history(200)], ENCODER)[0]
    assert np.array_equal(part.network.stretch, Response.none(3).stretch)


def test_what_is_stored_comes_back(parts, kept):
    found, why = stored.load(kept / "line1.npz")
    assert why is None and found is not None
    assert (found.tags, found.period_ms, found.model_sha256) == (TAGS, 1000.0, BUNDLE.sha256)
    mine, its = parts[0], found.parts[0]
    assert np.allclose(mine.calibration.lags, its.calibration.lags, atol=1e-6)
    assert mine.calibration.season is not None and its.calibration.season is not None
    assert np.allclose(mine.calibration.season.lags, its.calibration.season.lags, atol=1e-5)
    assert np.array_equal(mine.network.stretch, its.network.stretch)
    assert its.network.stretch.shape == (CLASSES, 3, 9)


@pytest.mark.parametrize("harm", ["cut short", "emptied", "not a zip", "other format", "not finite"])
def test_a_damaged_file_counts_as_absent_and_says_what_to_do(parts, kept, harm):
    path = kept / "line1.npz"
    data = path.read_bytes()
    if harm == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "emptied":
        path.write_bytes(b"")
    elif harm == "not a zip":
        path.write_bytes(b"tags,flow\n" * 30)
    else:
        with np.load(path) as file:
            arrays = dict(file)
        arrays |= {"format": np.array(99)} if harm == "other format" else {"0/mean": np.full(3, np.nan)}
        np.savez(path, **arrays)
    found, why = stored.load(path)
    assert found is None
    assert why is not None and str(path) in why and "run 'denoised calibrate-sensors' again" in why
    assert stored.find(kept, TAGS, None, BUNDLE.sha256) is None


def test_a_group_serves_requests_of_its_tags_in_any_order_and_of_some_of_them(kept):
    found = stored.find(kept, ("speed", "pressure"), None, BUNDLE.sha256)
    assert found is not None and found.name == "line1"
    part = found.parts[0]
    assert [("speed", "pressure")[c] for c in part.columns] == ["pressure", "speed"]
    assert part.calibration.mean == pytest.approx([10, -3], abs=0.3)
    assert np.linalg.eigvalsh(part.calibration.prior(3).covariance).min() > 0


def test_a_group_of_other_tags_another_period_or_another_model_does_not_serve(kept, caplog):
    assert stored.find(kept, (*TAGS, "vibration"), None, BUNDLE.sha256) is None
    assert stored.find(kept, TAGS, 500.0, BUNDLE.sha256) is None
    assert stored.find(kept, TAGS, 1000, BUNDLE.sha256) is not None
    assert stored.find(None, TAGS, None, BUNDLE.sha256) is None
    assert not caplog.records
    assert stored.find(kept, TAGS, None, "another") is None
    assert "made for another version of the model" in caplog.text


def test_the_stamp_of_a_site_changes_with_what_is_stored(kept, parts):
    before = Site(calibrations=kept).stamp()
    stored.store(kept / "line2.npz", stored.Stored(TAGS, None, BUNDLE.sha256, parts))
    assert Site(calibrations=kept).stamp() != before
    assert Site().stamp() == []


def test_newer_history_moves_what_is_known_and_the_older_is_forgotten_by_its_weight(parts):
    newer = history(1600, seed=2, row=7) + [2.0, 0.0, 0.0]
    half = site.refresh(parts, [newer], ENCODER, keep=1.0)[0].calibration
    none = site.refresh(parts, [newer], ENCODER, keep=1e-6)[0].calibration
    assert half.mean[0] == pytest.approx(11, abs=0.2)
    assert half.rows == pytest.approx(3200)
    assert none.mean[0] == pytest.approx(12, abs=0.2)
    assert np.allclose(none.lags, calibrate([newer]).lags, atol=1e-3)


def test_a_refreshed_cycle_is_that_of_both_wherever_the_newer_history_begins(parts):
    once = parts[0].calibration
    again = site.refresh(parts, [history(1600, seed=2, row=7)], ENCODER, keep=1.0)[0].calibration
    assert once.season is not None and again.season is not None
    assert np.abs(once.season.mean - again.season.mean).max() < 0.2
    assert np.linalg.eigvalsh(again.prior(5).covariance).min() > 0


def test_more_tags_than_are_looked_at_together_are_learnt_in_groups():
    wide = np.concatenate([history(100, seed=s) for s in range(6)], 1)
    made = site.learn([wide], ENCODER)
    assert sorted(np.concatenate([p.columns for p in made]).tolist()) == list(range(18))
    assert all(len(p.columns) <= 16 for p in made)
    assert replace(made[0]).calibration.rows == 100
