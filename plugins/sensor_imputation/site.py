"""From a history of a group of sensors to all that is learnt of it; newer history refreshes it, the older is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...engines.engine import Engine
from . import response
from .gaussian import Calibration, calibrate, marks_of, standardise
from .response import Response
from .season import Season
from .stored import Part

_GROUP = 16
"""Tags that are looked at together; more are split into groups of those that move most alike."""


def learn(history: Sequence[np.ndarray], encoder: Engine, seed: int = 0) -> tuple[Part, ...]:
    """Every group of columns of the segments (T, K), in the plant's units, NaN = missing."""
    every = np.concatenate(history)
    chosen = groups(every, np.isnan(every))
    return tuple(_part([s[:, columns] for s in history], columns, encoder, seed) for columns in chosen)


def refresh(
    old: tuple[Part, ...], history: Sequence[np.ndarray], encoder: Engine, keep: float, seed: int = 0
) -> tuple[Part, ...]:
    """The old parts, counted from what weighs `keep` as much as it did, with newer history (T, K) of the same tags."""
    out = []
    for part in old:
        mine = [s[:, part.columns] for s in history]
        new = _part(mine, part.columns, encoder, seed)
        share = keep * part.calibration.rows / (keep * part.calibration.rows + new.calibration.rows)
        calibration = _merged(part.calibration, new.calibration, share, mine)
        gaussian = _between(part.gaussian, new.gaussian, share)
        out.append(Part(part.columns, calibration, gaussian, _between(part.network, new.network, share)))
    return tuple(out)


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


def _part(history: list[np.ndarray], columns: np.ndarray, encoder: Engine, seed: int) -> Part:
    calibration = replace(calibrate(history, seed), marks=marks_of(history))
    return Part(columns, calibration, *response.learn(history, encoder, seed))


def _between(old: Response, new: Response, share: float) -> Response:
    return Response(
        share * old.blend + (1 - share) * new.blend, np.exp(share * np.log(old.stretch) + (1 - share) * np.log(new.stretch))
    )


def _merged(old: Calibration, new: Calibration, share: float, history: Sequence[np.ndarray]) -> Calibration:
    """The moments of both together, `share` of the old (law of total covariance); a tag known to one only is that one's.

    The cycle is merged where both have the same one, the new one's rows brought to the old one's; else the larger share's.
    """
    weight = np.where(old.known & new.known, share, old.known.astype(float))
    mean = weight * old.mean + (1 - weight) * new.mean
    square = [c.std**2 + (c.mean - mean) ** 2 for c in (old, new)]
    std = np.sqrt(weight * square[0] + (1 - weight) * square[1])
    lags = [_in_units_of(std, c, c.lags) + np.outer((c.mean - mean) / std, (c.mean - mean) / std) for c in (old, new)]
    seasons = [
        c.season and Season((c.season.mean * c.std + c.mean - mean) / std, _in_units_of(std, c, c.season.lags))
        for c in (old, new)
    ]
    season = seasons[share < 0.5]
    if seasons[0] and seasons[1] and seasons[0].period == seasons[1].period:
        row = old.starts_in(
            standardise(max(history, key=len), old)
        )  # the new cycle is counted from the longest segment's start
        ahead = [np.roll(a, row, 0) for a in (seasons[1].mean, seasons[1].lags)]
        levels = weight * seasons[0].mean + (1 - weight) * ahead[0]
        season = Season(levels, _both(weight, seasons[0].lags, ahead[1]))
    return Calibration(
        mean,
        std,
        _both(weight, *lags),
        new.rows / (1 - share),
        old.known | new.known,
        weight * old.peaked + (1 - weight) * new.peaked,
        season,
        tuple(_same_marks(a, b) for a, b in zip(old.marks, new.marks)),
    )


def _in_units_of(std: np.ndarray, c: Calibration, lags: np.ndarray) -> np.ndarray:
    out: np.ndarray = lags * np.outer(c.std, c.std) / np.outer(std, std)
    return out


def _both(weight: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Two lag covariances (..., K, K) as one; positive semi-definite as they are."""
    out: np.ndarray = np.sqrt(np.outer(weight, weight)) * old + np.sqrt(np.outer(1 - weight, 1 - weight)) * new
    return out


def _same_marks(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The values of both where either was found quantised in both histories, else none."""
    return np.union1d(old, new) if len(old) and len(new) else old[:0]
