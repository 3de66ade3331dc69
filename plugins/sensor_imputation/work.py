"""The work of one `sensor-imputation` job: every gap filled from what is stored of its tags, else from its own rows.

The operating point says by which rung of the ladder: a variant without networks is the Gaussian alone; 0 steps ask for the
network's quantile head; more steps draw an ensemble.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from ...config.refusal import Refusal
from ..kind import Problem, Task
from .gaussian import LENGTH, Calibration, calibrate, in_units, standardise
from .params import ImputationParams
from .quantiles import of_ensemble
from .response import Response
from .series import Way, impute
from .site import groups
from .stored import Found, Part, find

_HISTORY = 8192
"""Rows that the calibration is counted from."""


def repair(params: ImputationParams, task: Task) -> Generator[Problem, np.ndarray, dict[str, Any]]:
    """The `output` of the result; measured numbers are the very objects of the request."""
    if task.bundle.manifest.geometry.get("window") != LENGTH:
        raise Refusal("engine", f"model '{task.bundle.manifest.name}' is for windows other than {LENGTH} rows; choose another")
    values = np.array(params.values, dtype=np.float64)
    missing = np.isnan(values)
    wanted = (*params.quantiles, 0.5)
    answers = np.full((len(wanted), *values.shape), np.nan)
    networks, point = task.bundle.manifest.variants[task.point.variant], task.point
    encoder = task.network("encoder") if "encoder" in networks else None
    way = Way(encoder, () if point.steps else wanted, params.samples, bool(point.steps), point.batch)
    found = find(task.site.calibrations, params.tags, params.period_ms, task.bundle.sha256)
    for number, part in enumerate(found.parts if found else _own(values, missing, task.seed)):
        columns = part.columns
        if not missing[:, columns].any():
            continue

        def take(at: int, answer: np.ndarray, columns: Any = columns, calibration: Calibration = part.calibration) -> None:
            z = of_ensemble(answer, wanted) if point.steps else answer
            answers[:, at : at + z.shape[1], columns] = in_units(z, calibration)[..., : len(columns)]

        history = values[:, columns]
        if len(part.calibration.mean) > len(columns):  # the stand-in of a group without a measurement
            history = np.concatenate([history, _common(values)[:, None]], 1)
        z = standardise(history, part.calibration)
        response = part.network if encoder else part.gaussian
        yield from impute(part.calibration, response, z, way, task.seed, number, take)
    return _output(params, missing, answers, found)


def _own(values: np.ndarray, missing: np.ndarray, seed: int) -> Generator[Part, None, None]:
    """What the request's own rows tell, group by group."""
    for columns in groups(values, missing):
        if not missing[:, columns].any():
            continue
        history = values[:, columns]
        if missing[:, columns].all():  # nothing of this group was measured: told by the rest of the request
            history = np.concatenate([history, _common(values)[:, None]], 1)
        unchanged = Response.none(history.shape[1])
        yield Part(columns, calibrate(_history(history), seed), unchanged, unchanged)


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


def _output(params: ImputationParams, missing: np.ndarray, answers: np.ndarray, found: Found | None) -> dict[str, Any]:
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
        "calibration": {"name": found.name, "rows": round(found.rows)} if found else None,
        "uncertain": [tag for k, tag in enumerate(params.tags) if missing[:, k].all()],
    }
    given = {"start": params.start, "period_ms": params.period_ms}
    return {**output, **{name: value for name, value in given.items() if value is not None}}
