"""What the network is told about a window: per cell, in units of the Gaussian answer, so that any plant looks alike.

Simple candidates (a straight line, the last value held) stand as distances from the Gaussian mean; at measured cells
every distance is that of the leave-one-out answer, so that the network sees which candidate works on this window.
"""

from __future__ import annotations

import numpy as np

from .gaussian import LENGTH, Calibration, Conditional

CELL_FEATURES = 12
LIMIT = 8.0
"""Residuals in units of the Gaussian deviation are taken to lie within this."""
_NEAR = 8.0
"""Rows over which the size of surprises is averaged."""


def cell_features(calibration: Calibration, found: Conditional) -> np.ndarray:
    """(K, LENGTH, CELL_FEATURES) float32, as listed in the loop."""
    line, hold, distance = _candidates(found)
    own, every = _loudness(found)
    out = np.empty((found.mean.shape[1], LENGTH, CELL_FEATURES), np.float32)
    for i, feature in enumerate(
        (
            found.missing,
            np.clip(found.mean, -LIMIT, LIMIT),
            np.clip(found.surprise, -LIMIT, LIMIT),
            np.log(np.clip(found.std, 1e-3, 1e1)),
            np.arcsinh((line - found.mean) / found.std),
            np.arcsinh((hold - found.mean) / found.std),
            distance,
            np.full_like(found.mean, np.log10(1 + calibration.rows) / 4),
            np.arcsinh((found.usual - found.mean) / found.std),
            own,
            every,
            np.broadcast_to(calibration.peaked * 4 - 3, found.mean.shape),
        )
    ):
        out[:, :, i] = feature.T
    return out


def relation(calibration: Calibration) -> np.ndarray:
    """(K, K) float32: correlation of the tags at the same time, 0 with itself."""
    power = np.sqrt(np.maximum(np.diag(calibration.lags[0]), 1e-6))
    out = np.clip(calibration.lags[0] / np.outer(power, power), -1, 1).astype(np.float32)
    np.fill_diagonal(out, 0)
    return out


def _loudness(found: Conditional) -> tuple[np.ndarray, np.ndarray]:
    """(LENGTH, K) each: log of the mean square surprise nearby, of the tag and of all tags; 0 as far as nothing tells."""
    apart = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH))
    near = np.exp(-apart / _NEAR)
    square = near @ np.minimum(found.surprise**2, LIMIT**2)
    seen = near @ ~found.missing
    every = (square.sum(1) + 4) / (seen.sum(1) + 4)
    return np.log((square + 2) / (seen + 2)), np.broadcast_to(np.log(every)[:, None], square.shape)


def _candidates(found: Conditional) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Straight line, last value and distance to the nearest measured row, each (LENGTH, K), no cell using itself."""
    line, hold, distance = found.mean.copy(), found.mean.copy(), np.ones_like(found.mean)
    every = np.arange(LENGTH)
    for k in range(line.shape[1]):
        seen = np.flatnonzero(~found.missing[:, k])
        if len(seen) < 2:
            if len(seen):
                line[:, k] = hold[:, k] = found.mean[seen[0], k]
                distance[:, k] = np.abs(every - seen[0]) / LENGTH
            continue
        value = found.mean[seen, k]
        after = np.searchsorted(seen, every, side="right")  # the first measured row behind each row
        before = np.searchsorted(seen, every, side="left") - 1  # the last measured row ahead of it
        i, j = np.where(before < 0, after, before), np.where(after >= len(seen), before, after)
        i, j = np.minimum(i, len(seen) - 1), np.maximum(j, 0)
        share = (every - seen[i]) / np.maximum(seen[j] - seen[i], 1)
        line[:, k] = value[i] + share * (value[j] - value[i])
        hold[:, k] = value[i]
        distance[:, k] = np.minimum(np.abs(every - seen[i]), np.abs(seen[j] - every)) / LENGTH
    return line, hold, distance
