import warnings
from dataclasses import replace

import numpy as np
import pytest
from denoised.plugins.sensor_imputation.gaussian import (
    HALF,
    LENGTH,
    Calibration,
    calibrate,
    condition,
    in_units,
    marks_of,
    standardise,
)


def ar1(rows=4000, tags=2, rho=0.9, seed=0):
    """A VAR(1) whose lag covariance is known: rho**h times the correlation 0.8 between the tags."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.full((tags, tags), 0.8) + 0.2 * np.eye(tags))
    x = np.zeros((rows + 200, tags))
    for t in range(1, len(x)):
        x[t] = rho * x[t - 1] + np.sqrt(1 - rho**2) * root @ rng.standard_normal(tags)
    return x[200:]


def known(tags=2, rho=0.9):
    lags = rho ** np.arange(LENGTH)[:, None, None] * (np.full((tags, tags), 0.8) + 0.2 * np.eye(tags))
    return Calibration(np.zeros(tags), np.ones(tags), lags, 1e4, np.ones(tags, bool), np.full(tags, 0.8))


@pytest.fixture(params=["few missing", "most missing", "a dead tag", "a blackout"])
def window(request):
    rng, x = np.random.default_rng(3), ar1(rows=LENGTH, seed=4)
    if request.param == "a dead tag":
        x[:, 0] = np.nan
    elif request.param == "a blackout":
        x[10:30] = np.nan
    else:
        x[rng.random(x.shape) < (0.2 if request.param == "few missing" else 0.8)] = np.nan
    return x


def test_long_history_gives_the_lag_covariance_of_the_process():
    calibration = calibrate([ar1(rows=20000)])
    assert np.abs(calibration.lags[:20] - known().lags[:20]).max() < 0.1


def test_covariance_is_symmetric_positive_definite_even_from_a_dozen_rows():
    covariance = calibrate([ar1(rows=12, tags=5)]).prior().covariance
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_conditioning_is_that_of_the_textbook(window):
    prior = known().prior()
    found, c, v = condition(prior, window), prior.covariance, window.reshape(-1)
    m, o = np.isnan(v), ~np.isnan(v)
    gain = c[np.ix_(m, o)] @ np.linalg.inv(c[np.ix_(o, o)])
    assert np.allclose(found.mean.reshape(-1)[m], gain @ v[o], atol=1e-8)
    assert np.allclose(found.std.reshape(-1)[m] ** 2, np.diag(c[np.ix_(m, m)] - gain @ c[np.ix_(o, m)]), atol=1e-8)


def test_measured_cells_keep_their_value(window):
    found = condition(known().prior(), window)
    assert np.array_equal(found.mean[~found.missing], window[~np.isnan(window)])


def test_surprise_is_the_distance_from_what_the_others_say(window):
    found = condition(known().prior(), window)
    t, k = np.argwhere(~found.missing)[7]
    without = window.copy()
    without[t, k] = np.nan
    alone = condition(known().prior(), without)
    assert found.std[t, k] == pytest.approx(alone.std[t, k], rel=1e-6)
    assert found.surprise[t, k] == pytest.approx((window[t, k] - alone.mean[t, k]) / alone.std[t, k], rel=1e-5)


def test_coloured_noise_has_the_conditional_correlation(window):
    prior = known().prior()
    found = condition(prior, window)
    paths = prior.paths(np.random.default_rng(0).standard_normal((2, 4000, HALF * 2)))
    noise = found.colour(paths).reshape(4000, -1)
    m = found.missing.reshape(-1)
    c = prior.covariance
    conditional = c[np.ix_(m, m)] - c[np.ix_(m, ~m)] @ np.linalg.solve(c[np.ix_(~m, ~m)], c[np.ix_(~m, m)])
    std = np.sqrt(np.diag(conditional))
    assert not noise[:, ~m].any()
    assert np.abs(np.cov(noise[:, m].T) - conditional / np.outer(std, std)).max() < 0.12


def test_paths_of_two_halves_are_a_true_window():
    prior = known().prior()
    paths = prior.paths(np.random.default_rng(0).standard_normal((2, 4000, HALF * 2))).reshape(4000, -1)
    assert np.abs(np.cov(paths.T) - prior.covariance).max() < 0.12


def test_holes_in_the_history_are_learnt_around():
    x = ar1(rows=4000)
    holed = np.where(np.random.default_rng(1).random(x.shape) < 0.5, np.nan, x)
    assert np.abs(calibrate([holed]).lags[:10] - known().lags[:10]).max() < 0.2


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e9, 1e300])
def test_any_magnitude_standardises_alike(scale):
    x = ar1(rows=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration = calibrate([x * scale])
        z = standardise(x * scale, calibration)
    assert np.allclose(z, standardise(x, calibrate([x])), atol=1e-6)


def test_a_tag_that_never_moved_is_told_its_constant_with_no_spread():
    x = ar1(rows=60)
    x[:, 0] = 7.25
    calibration = calibrate([x])
    assert calibration.mean[0] == 7.25
    assert calibration.std[0] < 1e-300
    assert not standardise(x, calibration)[:, 0].any()


def test_a_tag_that_was_never_measured_is_as_wide_as_all_others_together():
    x = ar1(rows=60)
    x[:, 0] = np.nan
    x[:, 1] += 50
    calibration = calibrate([x])
    assert list(calibration.known) == [False, True]
    assert calibration.mean[0] == pytest.approx(np.nanmean(x))
    assert calibration.std[0] == pytest.approx(np.nanstd(x))
    assert condition(calibration.prior(), standardise(x[:LENGTH], calibration)).std[:, 0] == pytest.approx(1.0, abs=0.05)


def test_a_quantised_tag_is_answered_in_its_own_steps():
    rng = np.random.default_rng(0)
    history = [np.stack([np.round(rng.standard_normal(900)) * 0.25 + 3, rng.standard_normal(900)], 1)]
    calibration = replace(calibrate(history), marks=marks_of(history))
    assert [len(m) > 0 for m in calibration.marks] == [True, False]
    z = np.stack([np.linspace(-2, 2, 41)] * 2, 1)
    answered = in_units(z, calibration)
    assert set(answered[:, 0]) <= set(history[0][:, 0])
    assert (np.diff(answered[:, 0]) >= 0).all()
    assert len(set(answered[:, 1])) == 41


def test_a_quantised_tag_beyond_what_history_saw_is_not_pulled_back():
    history = [np.repeat([[20.0], [20.1]], 60, 0)]
    calibration = replace(calibrate(history), marks=marks_of(history))
    assert in_units((np.array([[25.0]]) - calibration.mean) / calibration.std, calibration)[0, 0] == pytest.approx(25.0)


def test_a_changed_calibration_answers_by_its_own_covariance():
    one = known()
    assert one.prior().covariance[0, -1] > 0
    other = replace(one, lags=np.zeros_like(one.lags))
    assert other.prior().covariance[0, -1] == 0
