import numpy as np
import pytest
from denoised.plugins.sensor_imputation import season
from denoised.plugins.sensor_imputation.gaussian import LENGTH, calibrate, condition, standardise

PERIOD = 24


def plant(rows=2400, seed=0, row=0):
    """Two tags with a daily cycle, the second ten times as noisy by day as by night; starts in that row of the cycle."""
    rng, t = np.random.default_rng(seed), row + np.arange(rows)
    day = np.sin(2 * np.pi * t / PERIOD)
    loud = np.where(t % PERIOD < PERIOD // 2, 1.0, 0.1)
    return np.stack([day + 0.3 * rng.standard_normal(rows), 0.5 * day + loud * rng.standard_normal(rows)], 1)


def walk(rows=2400, seed=0):
    return np.cumsum(np.random.default_rng(seed).standard_normal((rows, 3)), 0)


def test_the_shortest_cycle_that_history_repeats_is_found():
    assert season.find_period([plant()]) == PERIOD


@pytest.mark.parametrize("history", [walk(), np.random.default_rng(1).standard_normal((2400, 3)), plant(7 * PERIOD)])
def test_no_cycle_is_found_where_there_is_none_or_too_few_of_it(history):
    assert season.find_period([history]) is None


def test_the_row_of_the_cycle_is_told_from_a_window_alone():
    calibration = calibrate([plant()])
    for row in (0, 5, 13, 23):
        z = standardise(plant(LENGTH, seed=9, row=row), calibration)
        z[10:20] = np.nan
        assert abs((calibration.starts_in(z) - row + 12) % PERIOD - 12) <= 1


def test_a_cycle_of_few_rows_counts_the_same_over_several_recordings():
    whole, parts = calibrate([plant()]), calibrate([plant(1600), plant(800, seed=3, row=7)])
    assert whole.season is not None and parts.season is not None
    assert np.abs(whole.season.mean - parts.season.mean).max() < 0.25


def test_the_covariance_of_every_row_of_the_cycle_is_symmetric_positive_definite():
    for rows in (9 * PERIOD, 2400):
        calibration = calibrate([plant(rows)])
        assert calibration.season is not None
        for row in range(PERIOD):
            covariance = calibration.prior(row).covariance
            assert np.allclose(covariance, covariance.T)
            assert np.linalg.eigvalsh(covariance).min() > 0


def test_bands_are_wide_by_day_and_narrow_by_night():
    calibration, window = calibrate([plant(6000)]), plant(LENGTH, seed=5)
    z = standardise(window, calibration)
    z[:, 1] = np.nan
    found = condition(calibration.prior(calibration.starts_in(z)), z)
    day, night = found.std[2:10, 1].mean(), found.std[14:22, 1].mean()
    assert day > 1.5 * night


def test_a_window_that_goes_on_from_another_is_of_the_same_process():
    prior, later = (calibrate([plant()]).prior(row) for row in (3, 3 + LENGTH // 2))
    half = len(prior.covariance) // 2
    assert np.allclose(prior.covariance[half:, half:], later.covariance[:half, :half])
