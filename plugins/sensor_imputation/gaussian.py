"""The closed-form floor: a stationary Gaussian process per plant, learnt by counting, conditioned exactly. numpy alone.

A plant is described by mean, deviation and lag covariance (length, K, K), counted from its own measurements. Biased lag
estimates are positive semi-definite by construction; holes are filled by a few rounds of stochastic expectation
maximisation (Celeux and Diebolt 1985); little data is shrunk toward a process in which each tag has a memory of its own
(a VAR(1) with diagonal coefficients and measuring noise). Samples are made by conditioning an unconditional path
(Matheron's rule; Wilson et al. 2021, equation 9), so that neighbouring windows share their noise.

Everything is in standardised units (z); only `standardise` and `Calibration.mean` / `std` know the plant's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LENGTH = 48
"""Rows of the model's window."""
HALF = LENGTH // 2
NUGGET = 1e-3
_TRUST = 60.0, 30.0
"""Rows of history (constant, per tag) at which the counted lag covariance weighs as much as the prior."""
_ROUNDS = 4


@dataclass(frozen=True)
class Calibration:
    """What is known of one plant. mean, std (K,) in the plant's units; lags (LENGTH, K, K), lags[h][i, j] = E[z_i(t+h) z_j(t)].

    rows: how many rows with a measurement it was counted from. known (K,): whether the tag was ever measured.
    """

    mean: np.ndarray
    std: np.ndarray
    lags: np.ndarray
    rows: float
    known: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """(LENGTH * K, LENGTH * K) of a window, flat index t * K + k."""
        length, tags, _ = self.lags.shape
        both = np.concatenate([self.lags[:0:-1].transpose(0, 2, 1), self.lags])  # lag -(length-1) ... length-1
        t = np.arange(length)
        full = both[t[:, None] - t[None, :] + length - 1].transpose(0, 2, 1, 3).reshape(length * tags, length * tags)
        full[np.diag_indices(length * tags)] += NUGGET
        return full

    @cached_property
    def precision(self) -> np.ndarray:
        """The inverse of `covariance`."""
        return np.linalg.inv(self.covariance)

    @cached_property
    def _walk(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How a path goes on by half a window: first factor, transition, factor of the innovation."""
        n = self.covariance.shape[0] // 2
        old, cross, new = self.covariance[:n, :n], self.covariance[n:, :n], self.covariance[n:, n:]
        transition = np.linalg.solve(old, cross.T).T
        innovation = new - transition @ cross.T
        innovation[np.diag_indices(n)] += 1e-9
        return np.linalg.cholesky(old), transition, np.linalg.cholesky(innovation)

    def begin(self, white: np.ndarray) -> np.ndarray:
        """The first half window of unconditional paths, (S, HALF * K), from white noise of that shape."""
        out: np.ndarray = white @ self._walk[0].T
        return out

    def go_on(self, before: np.ndarray, white: np.ndarray) -> np.ndarray:
        """The half window after `before`; any two in a row are a true window of the process."""
        _, transition, innovation = self._walk
        out: np.ndarray = before @ transition.T + white @ innovation.T
        return out

    def paths(self, white: np.ndarray) -> np.ndarray:
        """Whole windows (S, LENGTH, K) of unconditional paths from white noise (2, S, HALF * K)."""
        first = self.begin(white[0])
        return np.concatenate([first, self.go_on(first, white[1])], 1).reshape(len(first), LENGTH, -1)


@dataclass(frozen=True)
class Conditional:
    """One window given its measured cells, all (LENGTH, K) in z units.

    mean: the measured value, or the conditional mean. std: the conditional deviation of a missing cell, and of a measured
    one as if it alone were missing (leave-one-out). surprise: how many of those deviations a measured cell lies from
    what the others say, 0 at missing cells.
    """

    missing: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    surprise: np.ndarray
    weights: np.ndarray
    """(missing cells, measured cells): mean of the missing = weights @ measured."""

    def colour(self, paths: np.ndarray) -> np.ndarray:
        """Unconditional paths (S, LENGTH, K) -> noise of unit deviation, correlated as the missing cells are; 0 elsewhere."""
        flat, missing = paths.reshape(len(paths), -1), self.missing.reshape(-1)
        out = np.zeros_like(flat)
        out[:, missing] = (flat[:, missing] - flat[:, ~missing] @ self.weights.T) / self.std.reshape(-1)[missing]
        return out.reshape(paths.shape)


def condition(calibration: Calibration, window: np.ndarray) -> Conditional:
    """Exact conditioning of one window (LENGTH, K) in z units, NaN = missing, by the smaller of two systems."""
    flat = window.reshape(-1)
    missing = np.isnan(flat)
    m, o = np.flatnonzero(missing), np.flatnonzero(~missing)
    v = flat[o]
    if len(m) <= len(o):
        p = calibration.precision
        p_mo = p[np.ix_(m, o)]
        s = np.linalg.inv(p[np.ix_(m, m)])
        weights, var = -s @ p_mo, np.diag(s)
        mean = weights @ v
        pull = p[np.ix_(o, o)] @ v + p_mo.T @ mean
        tight = np.diag(p)[o] + np.einsum("mo,mo->o", p_mo, weights)
    else:
        c = calibration.covariance
        c_mo = c[np.ix_(m, o)]
        inverse = np.linalg.inv(c[np.ix_(o, o)])
        weights = c_mo @ inverse
        mean, var = weights @ v, np.diag(c)[m] - np.einsum("mo,mo->m", c_mo, weights)
        pull, tight = inverse @ v, np.diag(inverse)
    out = np.array([flat, np.ones_like(flat), np.zeros_like(flat)])
    out[0, m], out[1, m] = mean, np.sqrt(np.maximum(var, 1e-8))
    tight = np.maximum(tight, 1e-8)
    out[1, o], out[2, o] = tight**-0.5, pull * tight**-0.5
    mean, std, surprise = out.reshape(3, *window.shape)
    return Conditional(missing.reshape(window.shape), mean, std, surprise, weights)


def standardise(values: np.ndarray, calibration: Calibration) -> np.ndarray:
    """(T, K) in the plant's units -> z; a tag that never moved is 0 wherever it was measured."""
    with np.errstate(over="ignore", invalid="ignore"):
        z = (values * 0.5 - calibration.mean * 0.5) / calibration.std * 2  # halves, as the difference could overflow
    return np.clip(np.where(np.isfinite(z) | np.isnan(values), z, 0.0), -1e3, 1e3)


def calibrate(history: Sequence[np.ndarray], seed: int = 0) -> Calibration:
    """Counts a plant from its history: segments (T, K) in its own units, NaN = missing; one short window will do.

    A tag without any measurement stays unknown: independent of the others, its level and spread those of all measured
    values together, for want of anything better.
    """
    mean, std, known = _moments(np.concatenate(history))
    bare = Calibration(mean, std, np.zeros((LENGTH, len(mean), len(mean))), 0.0, known)
    z = [standardise(s, bare) for s in history]
    count = np.sum([(~np.isnan(s)).sum(0) for s in z], axis=0)
    holes = 1 - count.sum() / max(1, sum(map(np.size, z)))
    filled = [_interpolate(s) for s in z]
    calibration = _counted(filled, count, bare)
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS if holes > 0.03 else 0):
        filled = [_drawn(calibration, s, rng) for s in z]
        calibration = _counted(filled, count, bare)
    return calibration


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation and whether known, per tag; scaled first, so that no square overflows."""
    seen = ~np.isnan(values)
    count = seen.sum(0)
    largest = np.max(np.where(seen, np.abs(values), 0), axis=0)
    scale = np.where(largest > 0, largest, 1.0)
    unit = np.where(seen, values, 0) / scale
    mean = unit.sum(0) / np.maximum(count, 1)
    std = np.sqrt((np.where(seen, unit - mean, 0) ** 2).sum(0) / np.maximum(count, 1))
    std = np.where(std > 1e-12, std, 0.0)  # equal numbers, but for rounding
    mean, std, known = mean * scale, std * scale, count > 0
    if not known.all():
        top = scale[known].max()
        all_of_it = values[seen] / top
        spread = all_of_it.std() or abs(all_of_it.mean()) or 1.0
        mean[~known], std[~known] = all_of_it.mean() * top, spread * top
    return mean, np.where(std > 0, std, np.finfo(float).tiny), known


def _interpolate(z: np.ndarray) -> np.ndarray:
    """Holes of (T, K) filled by straight lines, ends held, an unmeasured tag 0."""
    t, out = np.arange(len(z)), np.zeros_like(z)
    for k in range(z.shape[1]):
        seen = ~np.isnan(z[:, k])
        if seen.any():
            out[:, k] = np.interp(t, t[seen], z[seen, k])
    return out


def _drawn(calibration: Calibration, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Holes of (T, K) filled by one draw of what the calibration says, window by window."""
    tags, out = z.shape[1], z.copy()
    for at in range(0, len(z), LENGTH):
        window = np.full((LENGTH, tags), np.nan)
        part = z[at : at + LENGTH]
        window[: len(part)] = part
        if np.isnan(part).any() and not np.isnan(part).all():
            found = condition(calibration, window)
            noise = found.colour(calibration.paths(rng.standard_normal((2, 1, HALF * tags))))[0]
            out[at : at + LENGTH] = (found.mean + found.std * noise)[: len(part)]
    return _interpolate(out)


def _counted(filled: list[np.ndarray], count: np.ndarray, bare: Calibration) -> Calibration:
    """Lag covariance of segments without holes, shrunk toward the prior by how many measurements (K,) each tag had."""
    tags = len(count)
    lags, total = np.zeros((LENGTH, tags, tags)), sum(map(len, filled))
    for s in filled:
        for h in range(min(LENGTH, len(s))):
            lags[h] += s[h:].T @ s[: len(s) - h]
    lags /= total
    trust = count**2 / (count**2 + (_TRUST[0] + _TRUST[1] * tags) ** 2.0)
    prior = _memory(lags, count)
    mixed = np.sqrt(np.outer(trust, trust)) * lags + np.sqrt(np.outer(1 - trust, 1 - trust)) * prior
    return Calibration(bare.mean, bare.std, mixed, float(count.sum()) / tags, bare.known)


def _memory(lags: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The prior (LENGTH, K, K): each tag an AR(1) with its own memory and measuring noise, innovations correlated.

    rho from the decay of the first lags, the share of signal from where that decay points at lag 0; the correlation is
    shrunk toward 0 where there is little data.
    """
    own = np.diagonal(lags, axis1=1, axis2=2)
    power = np.maximum(own[0], 1e-12)
    near, next_ = np.maximum(own[1] + own[2], 0) / power, np.maximum(own[2] + own[3], 0) / power
    rho = np.clip(next_ / np.maximum(near, 1e-3), 0.3, 0.995)
    rho = np.where(own[0] > 1e-6, rho, 0.95)
    signal = np.clip(own[1] / power / rho, 0.05, 0.999)
    signal = np.where(own[0] > 1e-6, signal, 0.999)
    gain = np.sqrt(count / (count + 24.0))
    correlation = lags[0] / np.sqrt(np.outer(power, power)) * np.outer(gain, gain) / np.sqrt(np.outer(signal, signal))
    spread = np.sqrt(1 - rho**2)
    shape = np.outer(spread, spread) / (1 - np.outer(rho, rho))  # stationary covariance of unit correlated innovations
    innovations = _nearest_correlation(correlation / shape)
    start = np.sqrt(np.outer(signal, signal)) * innovations * shape
    prior: np.ndarray = rho[:, None] ** np.arange(LENGTH)[:, None, None] * start
    prior[0][np.diag_indices(len(rho))] = 1.0
    return prior


def _nearest_correlation(matrix: np.ndarray) -> np.ndarray:
    """The matrix with negative eigenvalues cut and the diagonal made 1 again."""
    np.fill_diagonal(matrix, 1.0)
    values, vectors = np.linalg.eigh(np.clip(matrix, -1, 1))
    fixed = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    scale = np.sqrt(np.diag(fixed))
    out: np.ndarray = fixed / np.outer(scale, scale)
    return out
