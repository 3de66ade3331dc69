"""Training cases for the imputation network: windows of synthetic plants with their Gaussian answer, as arrays.

A shard holds cases with one number of tags, so that a batch needs no padding. Four fifths are made with a calibration
counted from a history that ends some time before the window, after which levels and gains may have shifted; the others with
one counted from a short recording around the window and its own gaps, as a job without any history does. numpy alone; every
shard is a function of its number.
"""

from __future__ import annotations

import numpy as np

from ..plugins.sensor_imputation.features import LIMIT, cell_features, relation
from ..plugins.sensor_imputation.gaussian import HALF, LENGTH, Calibration, calibrate, condition, standardise
from . import plants

NOISES = 8
"""Coloured noises kept per case; a random rotation of them is as good as new."""
_PLANTS, _LONG, _SHORT = 8, 24, 6
_TAGS = np.array([4, 6, 8, 9, 10, 11, 12, 11, 8, 7, 5, 4, 3, 2], float)

Shard = dict[str, np.ndarray]


def shard(number: int) -> Shard:
    """About 240 cases, float16: cells (n, K, L, F), relation (n, K, K), noise (n, NOISES, K, L), the others (n, K, L).

    residual: truth in units of the Gaussian deviation. std: that deviation. missing: what the network has to answer.
    target: the missing cells that the loss counts.
    """
    rng = np.random.default_rng([77, number])
    tags = int(rng.choice(len(_TAGS), p=_TAGS / _TAGS.sum())) + 1
    rows: list[Shard] = []
    for _ in range(_PLANTS):
        history = int(np.exp(rng.uniform(np.log(150), np.log(8000))))
        later = int(rng.integers(0, 1500)) if rng.random() < 0.5 else 0
        recording = plants.plant(rng, tags, history + later + 20 * LENGTH)
        past = recording[:history].copy()
        if rng.random() < 0.4:
            recording[history:] = _shifted(rng, recording[history:], past.std(0))
        if rng.random() < 0.2:
            past[rng.random(past.shape) < rng.uniform(0.05, 0.8)] = np.nan
        calibration = calibrate([past], seed=number)
        for _ in range(_LONG):
            at = int(rng.integers(history + later, len(recording) - LENGTH + 1))
            rows += _case(rng, calibration, recording[at : at + LENGTH], plants.dropout(rng, LENGTH, tags))
        for _ in range(_SHORT):
            rows += _short_case(rng, recording)
    return {name: np.stack([r[name] for r in rows]) for name in rows[0]}


def _shifted(rng: np.random.Generator, x: np.ndarray, std: np.ndarray) -> np.ndarray:
    """x (T, K) as after a service or in another season: some tags at another level, some with another gain."""
    tags = len(std)
    level = (
        np.exp(rng.uniform(np.log(0.05), np.log(0.7))) * rng.standard_normal(tags) * (rng.random(tags) < rng.uniform(0.2, 1))
    )
    gain = np.exp(rng.uniform(0, 0.25) * rng.standard_normal(tags))
    middle = x.mean(0)
    out: np.ndarray = middle + (x - middle) * gain + level * std
    return out


def _short_case(rng: np.random.Generator, recording: np.ndarray) -> list[Shard]:
    """A window at the end of, or somewhere in, 48 to 240 rows that are all there is to calibrate from."""
    length, tags = LENGTH if rng.random() < 0.5 else int(rng.integers(LENGTH, 241)), recording.shape[1]
    at = int(rng.integers(0, len(recording) - length + 1))
    start = length - LENGTH if rng.random() < 0.5 else int(rng.integers(0, length - LENGTH + 1))
    seen, truth = recording[at : at + length].copy(), recording[at + start : at + start + LENGTH]
    mask = plants.dropout(rng, LENGTH, tags)
    if rng.random() < 0.5:  # gaps elsewhere too
        seen[plants.dropout(rng, length, tags)] = np.nan
    window = seen[start : start + LENGTH]
    mask |= np.isnan(window)
    window[mask] = np.nan
    if np.isnan(window).all():
        return []
    return _case(rng, calibrate([seen]), truth, mask)


def _case(rng: np.random.Generator, calibration: Calibration, truth: np.ndarray, mask: np.ndarray) -> list[Shard]:
    tags = truth.shape[1]
    z = standardise(truth, calibration)
    if not calibration.known.all() or (np.abs(z) > 50).any():
        z = np.where(calibration.known, np.clip(z, -50, 50), np.nan)
        mask = mask | ~calibration.known
    if np.isnan(np.where(mask, np.nan, z)).all():
        return []
    seen = np.where(mask, np.nan, z)
    prior = calibration.prior(calibration.starts_in(seen))
    found = condition(prior, seen)
    paths = prior.paths(rng.standard_normal((2, NOISES, HALF * tags)))
    target = mask & ~np.isnan(z)
    residual = np.where(target, np.clip((z - found.mean) / found.std, -LIMIT, LIMIT), 0)
    half = np.float16
    return [
        {
            "cells": cell_features(calibration, found).astype(half),
            "relation": relation(calibration).astype(half),
            "residual": residual.T.astype(half),
            "std": np.clip(found.std, 0, 100).T.astype(half),
            "missing": mask.T.astype(half),
            "target": target.T.astype(half),
            "noise": found.colour(paths).transpose(0, 2, 1).astype(half),
        }
    ]
