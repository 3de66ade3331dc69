"""The work of one `sensor-imputation` job: calibrate from the request itself, fill every gap, answer in the plant's units."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from ...config.refusal import Refusal
from ..kind import Problem, Task
from .gaussian import LENGTH, Calibration, calibrate, standardise
from .params import ImputationParams
from .quantiles import of_ensemble
from .series import impute

_GROUP = 16
"""Tags that are looked at together; more are split into groups of those that move most alike."""
_HISTORY = 8192
"""Rows that the calibration is counted from."""
_LARGEST = float(np.finfo(np.float64).max)


def repair(params: ImputationParams, task: Task) -> Generator[Problem, np.ndarray, dict[str, Any]]:
    """The `output` of the result; measured numbers are the very objects of the request."""
    if task.bundle.manifest.geometry.get("window") != LENGTH:
        raise Refusal("engine", f"model '{task.bundle.manifest.name}' is for windows other than {LENGTH} rows; choose another")
    values = np.array(params.values, dtype=np.float64)
    missing = np.isnan(values)
    wanted = (*params.quantiles, 0.5)
    answers = np.full((len(wanted), *values.shape), np.nan)
    for number, columns in enumerate(groups(values, missing)):
        if not missing[:, columns].any():
            continue
        part = values[:, columns]
        if missing[:, columns].all():  # nothing of this group was measured: told by the rest of the request
            part = np.concatenate([part, _common(values)[:, None]], 1)
        calibration = calibrate(_history(part), seed=task.seed)

        def take(at: int, ensemble: np.ndarray, calibration: Calibration = calibration, columns: Any = columns) -> None:
            units = in_units(of_ensemble(ensemble, wanted), calibration)
            answers[:, at : at + units.shape[1], columns] = units[..., : len(columns)]

        z = standardise(part, calibration)
        encoder = task.network("encoder")
        yield from impute(calibration, z, encoder, params.samples, task.point.batch, task.seed, number, take)
    return _output(params, missing, answers)


def groups(values: np.ndarray, missing: np.ndarray) -> list[np.ndarray]:
    """Columns of (T, K) in groups of at most `_GROUP`, each around a tag and those that correlate most with it."""
    tags = values.shape[1]
    if tags <= _GROUP:
        return [np.arange(tags)]
    scale = np.max(np.where(missing, 0, np.abs(values)), axis=0)
    unit = np.where(missing, 0, values) / np.where(scale > 0, scale, 1)
    centred = np.where(missing, 0, unit - unit.sum(0) / np.maximum((~missing).sum(0), 1))
    power = np.sqrt((centred**2).sum(0))
    alike = np.abs(centred.T @ centred) / np.maximum(np.outer(power, power), 1e-300)
    left, out = list(range(tags)), []
    while left:
        order = sorted(left, key=lambda k: (k != left[0], -alike[left[0], k]))
        out.append(np.array(sorted(order[:_GROUP])))
        left = [k for k in left if k not in order[:_GROUP]]
    return out


def in_units(z: np.ndarray, calibration: Calibration) -> np.ndarray:
    """z (..., K) in the plant's units, finite whatever the magnitudes."""
    with np.errstate(over="ignore"):
        out: np.ndarray = np.clip(calibration.mean + calibration.std * z, -_LARGEST, _LARGEST)
    return out


def _common(values: np.ndarray) -> np.ndarray:
    """(T,) the first measured column with the most measurements: a stand-in for a group where nothing was measured."""
    best = int(np.argmax((~np.isnan(values)).sum(0)))
    return values[:, best]


def _history(values: np.ndarray) -> list[np.ndarray]:
    """All rows, or evenly spread stretches of a series that is longer than a calibration needs."""
    if len(values) <= _HISTORY:
        return [values]
    starts = np.linspace(0, len(values) - _HISTORY // 8, 8).astype(int)
    return [values[at : at + _HISTORY // 8] for at in starts]


def _output(params: ImputationParams, missing: np.ndarray, answers: np.ndarray) -> dict[str, Any]:
    def table(answer: np.ndarray) -> list[list[Any]]:
        filled = answer.tolist()
        return [
            [guess if value is None else value for value, guess in zip(row, guesses)]
            for row, guesses in zip(params.values, filled)
        ]

    output: dict[str, Any] = {
        "tags": list(params.tags),
        "values": table(answers[-1]),
        "imputed": missing.tolist(),
        "quantiles": {repr(float(level)): table(answer) for level, answer in zip(params.quantiles, answers)},
        "uncertain": [tag for k, tag in enumerate(params.tags) if missing[:, k].all()],
    }
    given = {"start": params.start, "period_ms": params.period_ms}
    return {**output, **{name: value for name, value in given.items() if value is not None}}
