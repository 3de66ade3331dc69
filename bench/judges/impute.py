"""The shipped imputation model behind the callable of an outside judge; the way is that of the job kind, without a daemon.

    cd <repository> && .venv/bin/python ../shared/tools/impute_eval.py --callable bench.judges.impute:impute

The rungs of the ladder: `gaussian` the closed form alone, `quantiles` the network's head without any sampling (the default
of the job), `draws` joint samples of that head without the denoiser, `impute` (one step) and `two_steps` joint samples. Each
is calibrated once per data set from `ctx["train"]`, as `denoised calibrate-sensors` does from a site's own history; no weights
are trained.
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
from denoised.plugins.sensor_imputation.gaussian import calibrate, in_units, standardise
from denoised.plugins.sensor_imputation.quantiles import LEVELS
from denoised.plugins.sensor_imputation.response import Response
from denoised.plugins.sensor_imputation.series import Way
from denoised.plugins.sensor_imputation.series import impute as impute_series
from denoised.plugins.sensor_imputation.site import learn
from denoised.plugins.sensor_imputation.stored import Part

SAMPLES = 32
_parts: dict[int, tuple[Any, tuple[Part, ...]]] = {}


def impute(x: np.ndarray, ctx: Mapping[str, Any]) -> np.ndarray:
    """x (B, L, K) standardised, NaN = missing -> joint samples (B, SAMPLES, L, K); measured cells unchanged."""
    return _answers(x, _site(ctx), Way(_model()[1], samples=SAMPLES), 1)


def two_steps(x: np.ndarray, ctx: Mapping[str, Any]) -> np.ndarray:
    """As `impute`, with two steps in place of one."""
    return _answers(x, _site(ctx), Way(_model()[1], samples=SAMPLES), 2)


def draws(x: np.ndarray, ctx: Mapping[str, Any]) -> np.ndarray:
    """As `impute`, without the denoiser: the Gaussian's own draws, carried to the head's quantiles."""
    return _answers(x, _site(ctx), Way(_model()[1], samples=SAMPLES, denoise=False), 0)


def quantiles(x: np.ndarray, ctx: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """The fastest rung with the network: its quantile head, ("q", (B, 19, L, K)) at the levels 0.05 ... 0.95."""
    return "q", _answers(x, _site(ctx), Way(_model()[1], LEVELS), 0)


def gaussian(x: np.ndarray, ctx: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """The closed form alone, calibrated, ("q", (B, 19, L, K))."""
    return "q", _answers(x, _site(ctx), Way(None, LEVELS), 0)


def alone(x: np.ndarray, ctx: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """As `quantiles`, but each series is calibrated from its own measured cells, as a job without any history is."""
    way, out = Way(_model()[1], LEVELS), []
    for series in x.astype(np.float64):
        unchanged = Response.none(series.shape[1])
        part = Part(np.arange(series.shape[1]), calibrate([series]), unchanged, unchanged)
        out.append(_answers(series[None], (part,), way, 0))
    return "q", np.concatenate(out)


def _answers(x: np.ndarray, parts: tuple[Part, ...], way: Way, steps: int) -> np.ndarray:
    bundle, _, denoiser = _model()
    manifest = bundle.manifest
    sigmas = schedule(manifest.schedule, steps, **manifest.schedule_args) if steps else []

    def solver(problem: Problem) -> np.ndarray:
        return solve(walk(problem, denoiser, sigmas, "gaussian_exact", manifest.prediction)) if steps else problem.x

    out = np.repeat(x[:, None], len(way.levels) or way.samples, 1).astype(np.float32)
    measured = ~np.isnan(x)
    for part in parts:
        response = part.network if way.encoder else part.gaussian
        for b, series in enumerate(x[..., part.columns].astype(np.float64)):
            if not np.isnan(series).any():
                continue

            def take(at: int, answer: np.ndarray, b: int = b, p: Part = part) -> None:
                out[b, :, at : at + answer.shape[1], p.columns] = in_units(answer, p.calibration).transpose(2, 0, 1)

            z = standardise(series, part.calibration)
            drive(impute_series(part.calibration, response, z, way, 0, b, take), solver)
    result: np.ndarray = np.where(measured[:, None], x[:, None], out)
    return result


@lru_cache(maxsize=1)
def _model() -> tuple[Bundle, Engine, Engine]:
    bundle = read_bundle(SHIPPED / "plant-imputer")
    bundle.verify()
    files = bundle.manifest.variants["fp32"]
    return bundle, open_engine(bundle.file(files["encoder"])), open_engine(bundle.file(files["denoiser"]))


def _site(ctx: Mapping[str, Any]) -> tuple[Part, ...]:
    """What is learnt of one history; the history itself is kept beside it, so that its identity stays its own."""
    train = ctx["train"]
    if id(train) not in _parts:
        if len(_parts) > 8:
            _parts.clear()
        history = [segment.astype(np.float64) for segment in train]
        _parts[id(train)] = train, learn(history, _model()[1])
    return _parts[id(train)][1]
