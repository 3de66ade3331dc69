"""A series of any length through the network's fixed window: cut, prepared, sampled and blended back, block by block.

Windows overlap by half. Their noise comes from one path through the whole series, so two windows that cover the same cell
draw nearly the same there, and their ensembles are blended member by member without losing spread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import islice

import numpy as np

from ...engines import noise
from ...engines.engine import Engine
from ..kind import Problem
from . import quantiles
from .features import cell_features, relation
from .gaussian import HALF, LENGTH, Calibration, Conditional, condition

Take = Callable[[int, np.ndarray], None]
"""(first row, ensemble (S, rows, K) in z units): what becomes of a finished stretch of the series."""
_FADE = ((np.arange(HALF) + 0.5) / HALF)[:, None]
"""Weight of the later of two windows along the rows they share."""


def windows(missing: np.ndarray) -> list[int]:
    """First blocks of the windows to compute for missing (blocks * HALF, K): those that hold a missing cell."""
    holes = np.any(missing.reshape(len(missing) // HALF, -1), axis=1)
    return [int(i) for i in np.flatnonzero(holes[:-1] | holes[1:])]


def impute(
    calibration: Calibration, z: np.ndarray, encoder: Engine, samples: int, batch: int, seed: int, stream: int, take: Take
) -> Generator[Problem, np.ndarray, None]:
    """Fills the series z (T, K), NaN = missing, and hands each stretch with gaps to `take`; measured cells stay as they are.

    samples = 0 asks for no sampling: the quantile head's 19 levels stand for the ensemble. stream keeps the noise of
    several series of one job apart.
    """
    front = max(LENGTH, -(-len(z) // HALF) * HALF) - len(z)  # rows before the first, never measured
    padded = np.concatenate([np.full((front, z.shape[1]), np.nan), z])
    missing = np.isnan(padded)
    missing[:front] = False
    wanted = windows(missing)
    missing[:front] = True
    paths = _paths(calibration, wanted, samples, seed, stream)
    waiting = iter(wanted)
    half_done: tuple[int, np.ndarray] | None = None
    while firsts := list(islice(waiting, batch)):
        found = [condition(calibration, padded[i * HALF : i * HALF + LENGTH]) for i in firsts]
        ensembles = yield from _ensembles(calibration, found, encoder, samples, [next(paths) for _ in firsts], firsts, stream)
        for first, ensemble in zip(firsts, ensembles):
            early = ensemble[:, :HALF]
            if half_done is not None:
                block, late = half_done
                if block == first:
                    early = (1 - _FADE) * late + _FADE * early
                else:
                    _give(take, block, late, front)
            _give(take, first, early, front)
            half_done = first + 1, ensemble[:, HALF:]
    if half_done is not None:
        _give(take, *half_done, front)


def _give(take: Take, block: int, ensemble: np.ndarray, front: int) -> None:
    at = block * HALF - front
    if at + HALF > 0:
        take(max(at, 0), ensemble[:, max(-at, 0) :])


def _paths(calibration: Calibration, wanted: list[int], samples: int, seed: int, stream: int) -> Iterator[np.ndarray]:
    """For each window in turn its unconditional path (S, LENGTH, K), each block's white noise a function of its number."""
    tags = len(calibration.mean)
    if not samples:
        yield from [np.zeros((0, LENGTH, tags))] * len(wanted)
        return
    before: tuple[int, np.ndarray] | None = None
    for first in wanted:
        white = [noise.gaussian(seed, (stream << 32) + first + i, 0, (samples, HALF * tags)).astype(float) for i in (0, 1)]
        start = before[1] if before is not None and before[0] == first else calibration.begin(white[0])
        after = calibration.go_on(start, white[1])
        before = first + 1, after
        yield np.concatenate([start, after], 1).reshape(samples, LENGTH, tags)


def _ensembles(
    calibration: Calibration,
    found: list[Conditional],
    encoder: Engine,
    samples: int,
    paths: list[np.ndarray],
    firsts: list[int],
    stream: int,
) -> Generator[Problem, np.ndarray, list[np.ndarray]]:
    """An ensemble (S, LENGTH, K) in z units for each window."""
    cells = np.stack([cell_features(calibration, f) for f in found])
    told = encoder.run({"cells": cells, "relation": np.repeat(relation(calibration)[None], len(found), 0)})
    knots = told["knots"].copy()  # (W, K, LENGTH, 19); the engine's own buffers are overwritten by its next call
    if not samples:
        return [f.mean + f.std * np.where(f.missing, k.transpose(2, 1, 0), 0) for f, k in zip(found, knots)]
    start = np.stack([quantiles.spread_evenly(f.colour(p), f.missing) for f, p in zip(found, paths)])
    hidden = np.stack([f.missing.T for f in found]).astype(np.float32)
    cond = {"context": told["context"].copy(), "mix": told["mix"].copy(), "missing": hidden}
    items = tuple((stream << 32) + first for first in firsts)
    z = yield Problem(start.transpose(0, 1, 3, 2).astype(np.float32), cond, items)
    out = []
    for f, k, clean in zip(found, knots, z):
        ensemble = np.repeat(f.mean[None], samples, 0)
        cell = f.missing.T
        residual = quantiles.to_residual(clean[:, cell], k[cell])
        ensemble.transpose(0, 2, 1)[:, cell] += f.std.T[cell] * residual
        out.append(ensemble)
    return out
