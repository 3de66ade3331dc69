"""A series of any length through the network's fixed window: cut, prepared, sampled and blended back, block by block.

Windows overlap by half. Their noise comes from one path through the whole series, so two windows that cover the same cell
draw nearly the same there, and their ensembles are blended member by member without losing spread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist

import numpy as np

from ...engines import noise
from ...engines.engine import Engine
from ..kind import Problem
from . import quantiles
from .features import cell_features, relation
from .gaussian import HALF, LENGTH, Calibration, Conditional, condition
from .quantiles import KNOTS
from .response import Response

Take = Callable[[int, np.ndarray], None]
"""(first row, answers (S, rows, K) in z units): what becomes of a finished stretch of the series."""
_FADE = ((np.arange(HALF) + 0.5) / HALF)[:, None]
"""Weight of the later of two windows along the rows they share."""


@dataclass(frozen=True)
class Way:
    """How a series is answered: a rung of the ladder from the closed form alone up to the sampled network.

    encoder: its quantile head corrects the Gaussian's; None: the Gaussian alone. levels: answers are quantiles at these
    levels, nothing is drawn; empty: answers are `samples` joint draws. denoise: draws go through the denoiser; else they
    are the Gaussian's, carried to the quantiles cell by cell. batch: windows per call of a network.
    """

    encoder: Engine | None
    levels: tuple[float, ...] = ()
    samples: int = 0
    denoise: bool = True
    batch: int = 8


def windows(missing: np.ndarray) -> list[int]:
    """First blocks of the windows to compute for missing (blocks * HALF, K): those that hold a missing cell."""
    holes = np.any(missing.reshape(len(missing) // HALF, -1), axis=1)
    return [int(i) for i in np.flatnonzero(holes[:-1] | holes[1:])]


def impute(
    calibration: Calibration, response: Response, z: np.ndarray, way: Way, seed: int, stream: int, take: Take
) -> Generator[Problem, np.ndarray, None]:
    """Fills the series z (T, K), NaN = missing, and hands each stretch with gaps to `take`; measured cells stay as they are.

    Every batch of windows is one problem, an empty one where nothing is denoised: whoever drives it may stop there.
    stream keeps the noise of several series of one job apart.
    """
    front = max(LENGTH, -(-len(z) // HALF) * HALF) - len(z)  # rows before the first, never measured
    padded = np.concatenate([np.full((front, z.shape[1]), np.nan), z])
    missing = np.isnan(padded)
    missing[:front] = False
    wanted = windows(missing)
    missing[:front] = True
    row = calibration.starts_in(z) - front  # of the cycle, in which the first block starts
    paths = _paths(calibration, row, wanted, 0 if way.levels else way.samples, seed, stream)
    waiting = iter(wanted)
    half_done: tuple[int, np.ndarray] | None = None
    while firsts := list(islice(waiting, way.batch)):
        found = [condition(calibration.prior(row + i * HALF), padded[i * HALF : i * HALF + LENGTH]) for i in firsts]
        items = tuple((stream << 32) + first for first in firsts)
        answers = yield from _answers(calibration, response, found, way, [next(paths) for _ in firsts], items)
        for first, ensemble in zip(firsts, answers):
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


def _paths(calibration: Calibration, row: int, wanted: list[int], samples: int, seed: int, stream: int) -> Iterator[np.ndarray]:
    """For each window in turn its unconditional path (S, LENGTH, K), each block's white noise a function of its number."""
    tags = len(calibration.mean)
    if not samples:
        yield from [np.zeros((0, LENGTH, tags))] * len(wanted)
        return
    before: tuple[int, np.ndarray] | None = None
    for first in wanted:
        white = [noise.gaussian(seed, (stream << 32) + first + i, 0, (samples, HALF * tags)).astype(float) for i in (0, 1)]
        prior = calibration.prior(row + first * HALF)
        start = before[1] if before is not None and before[0] == first else prior.begin(white[0])
        after = prior.go_on(start, white[1])
        before = first + 1, after
        yield np.concatenate([start, after], 1).reshape(samples, LENGTH, tags)


def _answers(
    calibration: Calibration,
    response: Response,
    found: list[Conditional],
    way: Way,
    paths: list[np.ndarray],
    items: tuple[int, ...],
) -> Generator[Problem, np.ndarray, list[np.ndarray]]:
    """Answers (S, LENGTH, K) in z units for each window."""
    told = None
    if way.encoder is not None:
        cells = np.stack([cell_features(calibration, f) for f in found])
        told = way.encoder.run({"cells": cells, "relation": np.repeat(relation(calibration)[None], len(found), 0)})
    knots = []
    for i, f in enumerate(found):
        size = int(f.missing.sum())
        head = np.tile(np.array(KNOTS), (size, 1)) if told is None else told["knots"][i].transpose(1, 0, 2)[f.missing]
        knots.append(response.knots(head, f.missing))
    if way.levels:
        at = np.array([[NormalDist().inv_cdf(level)] for level in way.levels])
        unit = [np.broadcast_to(at, (len(at), len(k))) for k in knots]
    else:
        start = np.stack([quantiles.spread_evenly(f.colour(p), f.missing) for f, p in zip(found, paths)])
        unit = [x[:, f.missing] for x, f in zip(start, found)]
    if told is not None and way.denoise and not way.levels:
        hidden = np.stack([f.missing.T for f in found]).astype(np.float32)
        # The engine's own buffers are overwritten by its next call.
        cond = {"context": told["context"].copy(), "mix": told["mix"].copy(), "missing": hidden}
        clean = yield Problem(start.transpose(0, 1, 3, 2).astype(np.float32), cond, items)
        unit = [x.transpose(0, 2, 1)[:, f.missing] for x, f in zip(clean, found)]
    else:
        yield Problem(np.zeros((len(found), 0), np.float32), {}, items)
    out = []
    for f, k, u in zip(found, knots, unit):
        answer = np.repeat(f.mean[None], len(u), 0)
        answer[:, f.missing] += f.std[f.missing] * quantiles.to_residual(u, k)
        out.append(answer)
    return out
