"""The shipped imputation model behind the callable of an outside judge; the way is that of the job kind, without a daemon.

    cd <repository> && .venv/bin/python ../shared/tools/impute_eval.py --callable bench.judges.impute:impute

`impute` returns joint samples, `quantiles` those of the network's head without any sampling; `gaussian` the closed form
alone. Each calibrates once per data set from `ctx["train"]`, as a site would from its own history; no weights are trained.
`alone` uses no history at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from denoised.engines.bundle import SHIPPED, Bundle, read_bundle
from denoised.engines.engine import Engine, open_engine
from denoised.engines.schedules import schedule
from denoised.plugins.kind import Problem
from denoised.plugins.play import drive, solve, walk
from denoised.plugins.sensor_imputation.gaussian import Calibration, calibrate, condition, standardise
from denoised.plugins.sensor_imputation.quantiles import KNOTS
from denoised.plugins.sensor_imputation.series import impute as impute_series
from denoised.plugins.sensor_imputation.work import groups

SAMPLES = 32
_calibrations: dict[tuple[Any, ...], tuple[Any, Calibration]] = {}


def impute(x: np.ndarray, ctx: Mapping[str, Any]) -> np.ndarray:
    """x (B, L, K) standardised, NaN = missing -> joint samples (B, SAMPLES, L, K); measured cells unchanged."""
    return _answers(x, ctx, SAMPLES)


def quantiles(x: np.ndarray, ctx: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """The fastest rung with the network: its quantile head, ("q", (B, 19, L, K)) at the levels 0.05 ... 0.95."""
    return "q", _answers(x, ctx, 0)


def alone(x: np.ndarray, ctx: Mapping[str, Any]) -> np.ndarray:
    """As `impute`, but each series is calibrated from its own measured cells, as a job without any history does."""
    return np.concatenate([_answers(series[None], {"train": [series]}, SAMPLES) for series in x])


def gaussian(x: np.ndarray, ctx: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """The closed form alone on windows of the model's length, ("q", (B, 19, L, K))."""
    calibration, out = _calibrated(ctx, np.arange(x.shape[2])), []
    for window in x.astype(np.float64):
        found = condition(calibration, standardise(window, calibration))
        z = found.mean + np.array(KNOTS)[:, None, None] * found.std
        out.append(np.where(found.missing, calibration.mean + calibration.std * z, window))
    return "q", np.stack(out).astype(np.float32)


def _answers(x: np.ndarray, ctx: Mapping[str, Any], samples: int) -> np.ndarray:
    bundle, encoder, denoiser = _model()
    manifest, point = bundle.manifest, bundle.manifest.operating_points[0]
    sigmas = schedule(manifest.schedule, point.steps, **manifest.schedule_args)

    def solver(problem: Problem) -> np.ndarray:
        return solve(walk(problem, denoiser, sigmas, point.sampler, manifest.prediction))

    out = np.repeat(x[:, None], samples or len(KNOTS), 1).astype(np.float32)
    measured = ~np.isnan(x)
    history = np.concatenate(list(ctx["train"])).astype(np.float64)
    for columns in groups(history, np.isnan(history)):
        calibration = _calibrated(ctx, columns)
        for b, series in enumerate(x[..., columns].astype(np.float64)):
            if not np.isnan(series).any():
                continue
            z = standardise(series, calibration)

            def take(at: int, ensemble: np.ndarray, b: int = b, c: Any = columns, cal: Calibration = calibration) -> None:
                out[b, :, at : at + ensemble.shape[1], c] = (cal.mean + cal.std * ensemble).transpose(2, 0, 1)

            drive(impute_series(calibration, z, encoder, samples, 8, 0, b, take), solver)
    result: np.ndarray = np.where(measured[:, None], x[:, None], out)
    return result


@lru_cache(maxsize=1)
def _model() -> tuple[Bundle, Engine, Engine]:
    bundle = read_bundle(SHIPPED / "plant-imputer")
    bundle.verify()
    files = bundle.manifest.variants["fp32"]
    return bundle, open_engine(bundle.file(files["encoder"])), open_engine(bundle.file(files["denoiser"]))


def _calibrated(ctx: Mapping[str, Any], columns: np.ndarray) -> Calibration:
    """One calibration per history; the history itself is kept beside it, so that its identity stays its own."""
    train = ctx["train"]
    key = (id(train), columns.tobytes())
    if key not in _calibrations:
        if len(_calibrations) > 8:
            _calibrations.clear()
        _calibrations[key] = train, calibrate([segment[:, columns].astype(np.float64) for segment in train])
    return _calibrations[key][1]
