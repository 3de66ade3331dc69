"""A cycle that a plant repeats, such as day and night: found in its history, counted row by row of the cycle.

Within a cycle neither level nor scatter nor what follows what stays the same, so the process is cyclostationary (Gladyshev
1961): a mean per row of the cycle, and a lag covariance per row that it starts in. Counted over blocks of whole cycles with
the ends held at 0, that covariance is positive semi-definite; rows that are neighbours in the cycle are averaged, and few
cycles are shrunk toward the covariance of all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORTEST, LONGEST = 6, 168
"""Rows of a cycle that is looked for."""
_CYCLES = 8
"""Fewer of them in the history are no evidence."""
_CLEAR = 0.05
"""Least share of the quick variance that the cycle of one half of the history must explain of the other."""
_AS_GOOD = 0.97
_TRUST = 180.0, 20.0
"""Cycles at which the covariance, the mean of a row of the cycle weighs as much as that of all rows."""
_MOST_ROWS = 8192


@dataclass(frozen=True)
class Season:
    """By row p of the cycle: mean (P, K) in z units; lags (P, LENGTH, K, K), lags[p, h, i, j] = E[y_i(t+h) y_j(t)].

    t is in row p of the cycle, y = z - mean.
    """

    mean: np.ndarray
    lags: np.ndarray

    @property
    def period(self) -> int:
        """Rows of one cycle."""
        return len(self.mean)


def covariance(lags: np.ndarray, row: int) -> np.ndarray:
    """(LENGTH * K, LENGTH * K) of a window that starts in that row of the cycle, flat index t * K + k."""
    period, length, tags, _ = lags.shape
    out = np.empty((length, tags, length, tags))
    for t in range(length):
        column = lags[(row + t) % period, : length - t]
        out[t:, :, t] = column
        out[t, :, t:] = column.transpose(2, 0, 1)
    return out.reshape(length * tags, length * tags)


def find_period(segments: Sequence[np.ndarray]) -> int | None:
    """Rows of the shortest cycle that the longest segment (T, K) without holes repeats, or None.

    The profile of each half is told the other, both without what is slower than the cycle.
    """
    longest = max(segments, key=len)[-_MOST_ROWS:]
    tried = range(SHORTEST, min(LONGEST, len(longest) // _CYCLES) + 1)
    shares = np.array([_share(longest, period) for period in tried])
    if not len(shares) or shares.max() < _CLEAR:
        return None
    return int(tried[np.flatnonzero(shares >= _AS_GOOD * shares.max())[0]])


def align(segments: Sequence[np.ndarray], period: int) -> list[tuple[np.ndarray, int]]:
    """The segments long enough to tell, each with the row of the cycle that it starts in; the longest starts in row 0."""
    longest = max(segments, key=len)
    profile = _profile(_quick(longest, period), period)
    out = []
    for segment in segments:
        if segment is longest:
            out.append((segment, 0))
        elif len(segment) >= 2 * period:
            own = _profile(_quick(segment, period), period)
            alike = [float((np.roll(own, row, 0) * profile).sum()) for row in range(period)]
            out.append((segment, int(np.argmax(alike))))
    return out


def count(aligned: Sequence[tuple[np.ndarray, int]], period: int, length: int) -> Season:
    """Mean and lag covariance by row of the cycle of segments (T, K) without holes, each with the row it starts in."""
    tags = aligned[0][0].shape[1]
    cycles = sum(len(s) for s, _ in aligned) / period
    total, number = np.zeros((period, tags)), np.zeros(period)
    for segment, row in aligned:
        rows = (row + np.arange(len(segment))) % period
        np.add.at(total, rows, segment)
        number += np.bincount(rows, minlength=period)
    mean = total / (number + _TRUST[1])[:, None]
    lags = np.zeros((period, length, tags, tags))
    for segment, row in aligned:
        y = segment - mean[(row + np.arange(len(segment))) % period]
        whole = -(-(row + len(y)) // period) * period
        padded = np.zeros((whole + length, tags))
        padded[row : row + len(y)] = y
        first = padded[:whole].reshape(-1, period, tags).transpose(1, 0, 2)
        for h in range(length):
            lags[:, h] += padded[h : h + whole].reshape(-1, period, tags).transpose(1, 2, 0) @ first
    lags /= cycles
    trust = cycles / (cycles + _TRUST[0])
    every = lags.mean(0, keepdims=True)
    return Season(mean, (1 - trust) * every + trust * _smooth(lags))


def starts_in(season: Season, z: np.ndarray, length: int, nugget: float) -> int:
    """The most likely row of the cycle that the series z (T, K), NaN = missing, starts in, by a few of its windows."""
    tags = z.shape[1]
    whole = covariance(season.lags.mean(0, keepdims=True), 0)
    whole[np.diag_indices(len(whole))] += nugget
    mean = season.mean[(np.arange(season.period)[:, None] + np.arange(length)) % season.period].reshape(season.period, -1)
    likely = np.zeros(season.period)
    last = max(0, len(z) - length)
    for at in np.unique(np.linspace(0, last, min(4, 1 + last // length)).astype(int)).tolist():
        window = np.full((length, tags), np.nan)
        part = z[at : at + length]
        window[: len(part)] = part
        flat = window.reshape(-1)
        seen = np.flatnonzero(~np.isnan(flat))
        if len(seen):
            factor = np.linalg.cholesky(whole[np.ix_(seen, seen)])
            apart = np.linalg.solve(factor, (flat[seen] - mean[:, seen]).T)
            likely += np.roll(-0.5 * (apart**2).sum(0), -at)
    return int(np.argmax(likely))


def _quick(x: np.ndarray, period: int) -> np.ndarray:
    """(T, K) without its running mean over one cycle; T - period + 1 rows, the first `period // 2` are lost at the front."""
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, 0)])
    mean = (total[period:] - total[:-period]) / period
    front = period // 2
    quick: np.ndarray = np.zeros_like(x)
    quick[front : front + len(mean)] = x[front : front + len(mean)] - mean
    return quick


def _profile(x: np.ndarray, period: int) -> np.ndarray:
    """(period, K) mean over the whole cycles of x."""
    whole = len(x) // period * period
    out: np.ndarray = x[:whole].reshape(-1, period, x.shape[1]).mean(0)
    return out


def _share(x: np.ndarray, period: int) -> float:
    """Mean over the tags of the share of the quick variance in one half that the other half's profile explains."""
    quick = _quick(x, period)
    half = len(quick) // period // 2 * period
    halves = quick[:half], quick[half : 2 * half]
    left = power = np.zeros(x.shape[1])
    for mine, other in (halves, halves[::-1]):
        apart = mine.reshape(-1, period, x.shape[1]) - _profile(other, period)
        left = left + (apart**2).sum((0, 1))
        power = power + (mine**2).sum(0)
    return float(np.mean(np.maximum(0, 1 - left / np.maximum(power, 1e-9))))


def _smooth(lags: np.ndarray) -> np.ndarray:
    """Averaged over neighbouring rows of the cycle, with a deviation of 1/24 of it."""
    period = len(lags)
    apart = np.minimum(np.arange(period), period - np.arange(period))
    weight = np.exp(-0.5 * (apart / (period / 24)) ** 2)
    weight /= weight.sum()
    spread = weight[(np.arange(period)[:, None] - np.arange(period)) % period]
    out: np.ndarray = np.tensordot(spread, lags, 1)
    return out
