"""Between unit Gaussian space and the answer: a monotone map per cell, and quantiles of ensembles.

The diffusion runs where each missing cell is nearly N(0, 1); the head's quantiles at 19 levels carry it to the residual
(a probability integral transform, linear between the knots and beyond the outermost with their slope).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))
KNOTS = tuple(NormalDist().inv_cdf(q) for q in LEVELS)
"""Where the levels lie in a unit Gaussian."""
_Z = np.array(KNOTS, np.float32)


def to_residual(z: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """z (S, N) unit Gaussian space, knots (N, 19) quantiles of each cell -> (S, N) residuals."""
    i = np.clip(np.searchsorted(_Z, z) - 1, 0, len(_Z) - 2)
    cell = np.arange(z.shape[1])
    low, high = knots[cell, i], knots[cell, i + 1]
    out: np.ndarray = low + (z - _Z[i]) / (_Z[i + 1] - _Z[i]) * (high - low)
    return out


def spread_evenly(x: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Noise (S, ...) of unit deviation with each cell's ranks kept, its values at even steps of probability, its deviation 1.

    A stratified ensemble (Latin hypercube with the dependence of the draw; Stein 1987): the same quantiles from far
    fewer members. Single draws of few members stay as drawn.
    """
    members = len(x)
    if members < 8:
        return x
    normal = NormalDist()
    scores = np.array([normal.inv_cdf((i + 0.5) / members) for i in range(members)])
    scores /= scores.std()
    ranks = x.argsort(0).argsort(0)
    out: np.ndarray = np.where(where, scores[ranks], 0.0)
    return out


def of_ensemble(ensemble: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(S, ...) -> (levels, ...), ascending; without bias for any distribution (Hyndman and Fan 1996, definition 8)."""
    out: np.ndarray = np.quantile(ensemble, levels, axis=0, method="median_unbiased")
    return out
