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
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from . import season
from .season import Season

LENGTH = 48
"""Rows of the model's window."""
HALF = LENGTH // 2
NUGGET = 1e-3
_TRUST = 60.0, 30.0
"""Rows of history (constant, per tag) at which the counted lag covariance weighs as much as the prior."""
_GAUSSIAN_CHANGES = 0.8
_ROUNDS, _FEW = 4, 0.03
"""Rounds of expectation maximisation, where more than this share of the history is missing."""
_MOST_MARKS, _SEEN_EACH = 32, 20
"""A tag is quantised where it takes no more than so many values, each so many times as a mean."""
_LARGEST = float(np.finfo(np.float64).max)
_PRIORS = 4
"""Rows of the cycle whose factored covariances are kept: some 4 MB each at 7 tags, 19 MB at 16."""


@dataclass(frozen=True)
class Prior:
    """A window before anything of it is measured: mean (LENGTH, K) in z units, covariance (LENGTH * K, LENGTH * K)."""

    mean: np.ndarray
    covariance: np.ndarray

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
        """The first half window of unconditional paths about the mean, (S, HALF * K), from white noise of that shape."""
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
class Calibration:
    """What is known of one plant. mean, std (K,) in the plant's units; lags (LENGTH, K, K), lags[h][i, j] = E[z_i(t+h) z_j(t)].

    rows: how many rows with a measurement it was counted from. known (K,): whether the tag was ever measured.
    peaked (K,): mean over root mean square of the tag's changes from row to row: 0.8 for a Gaussian, less where it seldom
    moves or jumps. season: the cycle that it repeats, where there is one. marks: for each tag the few values, ascending, that
    it takes in the plant's units, none where it takes any; empty: not looked for.
    """

    mean: np.ndarray
    std: np.ndarray
    lags: np.ndarray
    rows: float
    known: np.ndarray
    peaked: np.ndarray
    season: Season | None = None
    marks: tuple[np.ndarray, ...] = ()
    _priors: dict[int, Prior] = field(default_factory=dict, init=False, compare=False, repr=False)

    def starts_in(self, z: np.ndarray) -> int:
        """The row of the cycle in which the series z (T, K), NaN = missing, most likely starts; 0 where there is none."""
        return season.starts_in(self.season, z, LENGTH, NUGGET) if self.season else 0

    def prior(self, row: int = 0) -> Prior:
        """Of a window that starts in that row of the cycle; the last few are kept."""
        period = self.season.period if self.season else 1
        row %= period
        if row not in self._priors:
            while len(self._priors) >= _PRIORS:
                del self._priors[next(iter(self._priors))]
            tags = len(self.mean)
            if self.season:
                mean = self.season.mean[(row + np.arange(LENGTH)) % period]
                full = season.covariance(self.season.lags, row)
            else:
                mean, full = np.zeros((LENGTH, tags)), season.covariance(self.lags[None], 0)
            full[np.diag_indices(LENGTH * tags)] += NUGGET
            self._priors[row] = Prior(mean, full)
        return self._priors[row]


@dataclass(frozen=True)
class Conditional:
    """One window given its measured cells, all (LENGTH, K) in z units.

    usual: the prior's mean. mean: the measured value, or the conditional mean. std: the conditional deviation of a missing
    cell, and of a measured one as if it alone were missing (leave-one-out). surprise: how many of those deviations a
    measured cell lies from what the others say, 0 at missing cells.
    """

    missing: np.ndarray
    usual: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    surprise: np.ndarray
    weights: np.ndarray
    """(missing cells, measured cells): mean of the missing = weights @ measured, both about the prior's mean."""

    def colour(self, paths: np.ndarray) -> np.ndarray:
        """Unconditional paths (S, LENGTH, K) -> noise of unit deviation, correlated as the missing cells are; 0 elsewhere."""
        flat, missing = paths.reshape(len(paths), -1), self.missing.reshape(-1)
        out = np.zeros_like(flat)
        out[:, missing] = (flat[:, missing] - flat[:, ~missing] @ self.weights.T) / self.std.reshape(-1)[missing]
        return out.reshape(paths.shape)


def condition(prior: Prior, window: np.ndarray) -> Conditional:
    """Exact conditioning of one window (LENGTH, K) in z units, NaN = missing, by the smaller of two systems."""
    flat = (window - prior.mean).reshape(-1)
    missing = np.isnan(flat)
    m, o = np.flatnonzero(missing), np.flatnonzero(~missing)
    v = flat[o]
    if len(m) <= len(o):
        p = prior.precision
        p_mo = p[np.ix_(m, o)]
        s = np.linalg.inv(p[np.ix_(m, m)])
        weights, var = -s @ p_mo, np.diag(s)
        mean = weights @ v
        pull = p[np.ix_(o, o)] @ v + p_mo.T @ mean
        tight = np.diag(p)[o] + np.einsum("mo,mo->o", p_mo, weights)
    else:
        c = prior.covariance
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
    told = np.where(np.isnan(window), prior.mean + mean, window)
    return Conditional(missing.reshape(window.shape), prior.mean, told, std, surprise, weights)


def standardise(values: np.ndarray, calibration: Calibration) -> np.ndarray:
    """(T, K) in the plant's units -> z; a tag that never moved is 0 wherever it was measured."""
    with np.errstate(over="ignore", invalid="ignore"):
        z = (values * 0.5 - calibration.mean * 0.5) / calibration.std * 2  # halves, as the difference could overflow
    return np.clip(np.where(np.isfinite(z) | np.isnan(values), z, 0.0), -1e3, 1e3)


def in_units(z: np.ndarray, calibration: Calibration) -> np.ndarray:
    """z (..., K) in the plant's units, finite whatever the magnitudes; a quantised tag takes the nearest of its marks."""
    with np.errstate(over="ignore"):
        out: np.ndarray = np.clip(calibration.mean + calibration.std * z, -_LARGEST, _LARGEST)
    for k, marks in enumerate(calibration.marks):
        if len(marks) > 1:
            x = out[..., k]
            between = (marks[1:] + marks[:-1]) / 2
            near = marks[np.searchsorted(between, x)]
            # Beyond what history saw by more than half a step nobody knows the marks.
            inside = (x > marks[0] - (between[0] - marks[0])) & (x < marks[-1] + (marks[-1] - between[-1]))
            out[..., k] = np.where(inside, near, x)
    return out


def marks_of(history: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """`Calibration.marks` of segments (T, K), NaN = missing."""
    out = []
    for column in np.concatenate(history).T:
        seen = column[~np.isnan(column)]
        values = np.unique(seen)
        out.append(values if len(values) <= _MOST_MARKS and len(seen) >= _SEEN_EACH * len(values) else values[:0])
    return tuple(out)


def calibrate(history: Sequence[np.ndarray], seed: int = 0) -> Calibration:
    """Counts a plant from its history: segments (T, K) in its own units, NaN = missing; one short window will do.

    A tag without any measurement stays unknown: independent of the others, its level and spread those of all measured
    values together, for want of anything better.
    """
    mean, std, known = _moments(np.concatenate(history))
    bare = Calibration(mean, std, np.zeros((LENGTH, len(mean), len(mean))), 0.0, known, np.full(len(mean), _GAUSSIAN_CHANGES))
    z = [standardise(s, bare) for s in history]
    bare = replace(bare, peaked=_peaked(z))
    count = np.sum([(~np.isnan(s)).sum(0) for s in z], axis=0)
    holes = 1 - count.sum() / max(1, sum(map(np.size, z)))
    filled = [_interpolate(s) for s in z]
    calibration = _counted(filled, count, bare)
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS if holes > _FEW else 0):
        filled = [_drawn(calibration, s, rng) for s in z]
        calibration = _counted(filled, count, bare)
    period = season.find_period(filled)
    if period is None:
        return calibration
    calibration = _with_season(calibration, filled, count, period)
    if holes > _FEW:
        filled = [_drawn(calibration, s, rng) for s in z]
        calibration = _with_season(_counted(filled, count, bare), filled, count, period)
    return calibration


def _with_season(calibration: Calibration, filled: list[np.ndarray], count: np.ndarray, period: int) -> Calibration:
    """With the cycle of `period` rows counted from segments without holes; shrunk toward its prior as `_counted` does."""
    found = season.count(season.align(filled, period), period, LENGTH)
    every = found.lags.mean(0)
    trust = _trust(count)
    prior = np.sqrt(np.outer(1 - trust, 1 - trust)) * _memory(every, count)
    lags = np.sqrt(np.outer(trust, trust)) * found.lags + prior
    return replace(calibration, season=Season(found.mean, lags))


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


def _peaked(z: list[np.ndarray]) -> np.ndarray:
    """See `Calibration.peaked`; a Gaussian's where there is little to tell."""
    changes = np.concatenate([np.diff(s, axis=0) for s in z])
    seen = ~np.isnan(changes)
    size = np.where(seen, np.abs(changes), 0)
    count = seen.sum(0)
    square = (size**2).sum(0)
    found = size.sum(0) / np.sqrt(np.maximum(square * count, 1e-12))
    told = count / (count + 50)
    out: np.ndarray = np.where(square > 1e-9, told * found + (1 - told) * _GAUSSIAN_CHANGES, _GAUSSIAN_CHANGES)
    return out


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
    tags, out, row = z.shape[1], z.copy(), calibration.starts_in(z)
    for at in range(0, len(z), LENGTH):
        window = np.full((LENGTH, tags), np.nan)
        part = z[at : at + LENGTH]
        window[: len(part)] = part
        if np.isnan(part).any() and not np.isnan(part).all():
            prior = calibration.prior(row + at)
            found = condition(prior, window)
            noise = found.colour(prior.paths(rng.standard_normal((2, 1, HALF * tags))))[0]
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
    trust = _trust(count)
    prior = _memory(lags, count)
    mixed = np.sqrt(np.outer(trust, trust)) * lags + np.sqrt(np.outer(1 - trust, 1 - trust)) * prior
    return replace(bare, lags=mixed, rows=float(count.sum()) / tags)


def _trust(count: np.ndarray) -> np.ndarray:
    """(K,) 0 ... 1: how much what was counted weighs against the prior, by measurements of each tag."""
    out: np.ndarray = count**2 / (count**2 + (_TRUST[0] + _TRUST[1] * len(count)) ** 2.0)
    return out


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
