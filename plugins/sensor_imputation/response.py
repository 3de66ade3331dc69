"""How wide an answer must be at this site, and how much of the network's correction helps here: learnt by masking history.

Windows of the history get gaps of every kind and are answered from a calibration that has not seen their quarter of it.
Where the truths fall among the quantiles says by how much each quantile is to be moved from the median (conformal
calibration of whole distributions: Kuleshov, Fenner and Ermon 2018; Romano, Patterson and Candes 2019), by class of gap and
by tag; few gaps of a tag are shrunk toward all tags, few in all toward no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...engines.engine import Engine
from .features import cell_features, relation
from .gaussian import LENGTH, Calibration, Conditional, calibrate, condition, standardise
from .quantiles import KNOTS, LEVELS, to_residual

Watch = Callable[[float], None]
"""Told how far the work is, 0 to 1."""
CLASSES = 8
"""How far away the tag's nearest measurement is (1, 2 to 4, 5 rows or more, none in the window), then the same where most
other tags are silent too."""
_UPPER = np.array(KNOTS[10:])
_FOLDS, _WINDOWS, _FEW = 4, 24, 15.0
"""Parts of the history, windows of each and kind of gap, windows at which a tag's own figures weigh half."""
_BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEAST, _MOST = 0.25, 4.0
PATTERNS = ("point 0.1", "point 0.5", "point 0.9", "block", "dead", "blackout")


def unwatched(share: float) -> None:
    """Nobody looks on."""


@dataclass(frozen=True)
class Response:
    """blend (CLASSES,) 0 ... 1: share of the network's correction. stretch (CLASSES, K, 9): where the upper knots go, in z."""

    blend: np.ndarray
    stretch: np.ndarray

    @classmethod
    def none(cls, tags: int) -> Response:
        """Answers stay as they are."""
        return cls(np.ones(CLASSES), np.broadcast_to(_UPPER, (CLASSES, tags, len(_UPPER))))

    def knots(self, knots: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Quantiles of the missing cells (N, 19) in units of the Gaussian deviation, moved; missing (LENGTH, K), row by row."""
        kind, tag = gap_classes(missing)[missing], np.nonzero(missing)[1]
        return _stretched(_blended(knots, self.blend[kind]), self.stretch[kind, tag])


@dataclass(frozen=True)
class _Gaps:
    """Masked cells of all windows: class, tag, window (N,), residual and deviation (N,), the network's knots (N, 19)."""

    kind: np.ndarray
    tag: np.ndarray
    window: np.ndarray
    residual: np.ndarray
    std: np.ndarray
    knots: np.ndarray


def rows_needed() -> int:
    """Rows of history below which nothing is learnt of the widths."""
    return 2 * _FOLDS * LENGTH


def gap_classes(missing: np.ndarray) -> np.ndarray:
    """(LENGTH, K) the class of each cell, should it be missing; see CLASSES."""
    rows, tags = missing.shape
    apart = np.abs(np.arange(rows)[:, None] - np.arange(rows))[:, :, None]
    distance = np.where(missing[None], rows, apart).min(1)
    kind = np.digitize(distance, (2, 5, rows))
    silent = missing.sum(1, keepdims=True) - missing > (tags - 1) / 2
    return kind + 4 * silent


def learn(history: Sequence[np.ndarray], encoder: Engine, seed: int = 0, watch: Watch = unwatched) -> tuple[Response, Response]:
    """Of the Gaussian alone, and of the network, from segments (T, K) in the plant's units, NaN = missing."""
    gaps = _masked(history, encoder, seed, watch)
    tags = history[0].shape[1]
    if gaps is None:
        return Response.none(tags), Response.none(tags)
    plain = np.broadcast_to(np.array(KNOTS), gaps.knots.shape)
    gaussian = Response(np.zeros(CLASSES), _stretch(gaps, plain, tags))
    blend = np.zeros(CLASSES)
    for kind in range(CLASSES):
        mine = gaps.kind == kind
        if mine.any():
            losses = [_loss(gaps, mine, share, tags) for share in _BLENDS]
            blend[kind] = _BLENDS[int(np.argmin(losses))]
    return gaussian, Response(blend, _stretch(gaps, _blended(gaps.knots, blend[gaps.kind]), tags))


def gaps_of(pattern: str, tags: int, rng: np.random.Generator) -> np.ndarray:
    """(LENGTH, K) True = missing, never all: cells alone, blocks of 5 to 30 rows of a sensor, a dead sensor, all at once."""
    missing = np.zeros((LENGTH, tags), bool)
    n = int(rng.integers(5, 31))
    at = int(rng.integers(0, LENGTH - n + 1))
    if pattern.startswith("point"):
        missing = rng.random(missing.shape) < float(pattern.split()[1])
    elif pattern == "dead" and tags > 1:
        missing[:, rng.integers(tags)] = True
    elif pattern == "block":
        hit = rng.random(tags) < 0.5
        hit[rng.integers(tags)] = True
        for k in np.flatnonzero(hit):
            n = int(rng.integers(5, 31))
            at = int(rng.integers(0, LENGTH - n + 1))
            missing[at : at + n, k] = True
    else:
        missing[at : at + n] = True
    if missing.all():
        missing[rng.integers(LENGTH), rng.integers(tags)] = False
    return missing


def folds(history: Sequence[np.ndarray]) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Each quarter of the history (whole segments where there are enough) held out: what is left, what is held out."""
    parts = list(history)
    if len(parts) < _FOLDS:
        parts = [piece for s in history for piece in np.array_split(s, _FOLDS)]
    for fold in range(_FOLDS):
        yield [p for i, p in enumerate(parts) if i % _FOLDS != fold], [p for i, p in enumerate(parts) if i % _FOLDS == fold]


def _masked(history: Sequence[np.ndarray], encoder: Engine, seed: int, watch: Watch = unwatched) -> _Gaps | None:
    """None where the history is too short to hold a part of it out."""
    rng, number = np.random.default_rng([seed, 11]), 0
    out: list[tuple[np.ndarray, ...]] = []
    if sum(map(len, history)) < rows_needed():
        return None
    for fold, (rest, held) in enumerate(folds(history)):
        watch(fold / _FOLDS)
        windows = [s[at : at + LENGTH] for s in held for at in range(0, len(s) - LENGTH + 1, LENGTH // 2)]
        if not windows:
            continue
        calibration = calibrate(rest, seed)
        for pattern in PATTERNS:
            chosen = np.linspace(0, len(windows) - 1, min(_WINDOWS, len(windows))).astype(int)
            asked: list[tuple[Conditional, np.ndarray]] = []
            for i in chosen.tolist():
                z = standardise(windows[i], calibration)
                seen = np.where(gaps_of(pattern, z.shape[1], rng), np.nan, z)
                if not np.isnan(seen).all():
                    asked.append((condition(calibration.prior(calibration.starts_in(seen)), seen), z))
            out += _answered(calibration, encoder, asked, number)
            number += len(asked)
    return _Gaps(*(np.concatenate(columns) for columns in zip(*out))) if out else None


def _answered(
    calibration: Calibration, encoder: Engine, asked: list[tuple[Conditional, np.ndarray]], number: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """The fields of `_Gaps` for each window."""
    for at in range(0, len(asked), 8):
        batch = asked[at : at + 8]
        cells = np.stack([cell_features(calibration, f) for f, _ in batch])
        told = encoder.run({"cells": cells, "relation": np.repeat(relation(calibration)[None], len(batch), 0)})
        for i, ((found, z), knots) in enumerate(zip(batch, told["knots"])):
            true = found.missing & ~np.isnan(z)
            kind, tag = gap_classes(found.missing)[true], np.nonzero(true)[1]
            residual = ((z - found.mean) / found.std)[true]
            yield (
                kind,
                tag,
                np.full(len(kind), number + at + i),
                residual,
                found.std[true],
                knots.transpose(1, 0, 2)[true].copy(),
            )


def _blended(knots: np.ndarray, share: np.ndarray) -> np.ndarray:
    out: np.ndarray = share[:, None] * knots + (1 - share[:, None]) * np.array(KNOTS)
    return out


def _stretched(knots: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """knots (N, 19), stretch (N, 9) -> (N, 19): the quantile that stood at z is now that of the stretched z."""
    z = np.concatenate([-stretch[:, ::-1], np.zeros((len(stretch), 1)), stretch], 1)
    return to_residual(z.T, knots).T


def _unit(residual: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """The inverse of `to_residual`: (N,) where the residual lies among its knots (N, 19), in z."""
    i = np.clip((knots < residual[:, None]).sum(1) - 1, 0, len(KNOTS) - 2)
    cell, z = np.arange(len(knots)), np.array(KNOTS)
    low, high = knots[cell, i], knots[cell, i + 1]
    out: np.ndarray = z[i] + (residual - low) / np.maximum(high - low, 1e-6) * (z[i + 1] - z[i])
    return out


def _stretch(gaps: _Gaps, knots: np.ndarray, tags: int) -> np.ndarray:
    """(CLASSES, K, 9): where the upper knots must go for as many truths inside as they promise."""
    size = np.abs(_unit(gaps.residual, knots))
    out = np.empty((CLASSES, tags, len(_UPPER)))
    for kind in range(CLASSES):
        mine = gaps.kind == kind
        pool = _moved(size[mine], gaps.window[mine], _UPPER)
        for tag in range(tags):
            own = mine & (gaps.tag == tag)
            out[kind, tag] = _moved(size[own], gaps.window[own], pool)
    return out


def _moved(size: np.ndarray, window: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """Quantiles of |z| at the shares that the upper knots promise; few windows stay near `toward`."""
    if not len(size):
        return toward
    promised = 2 * np.array(LEVELS[10:]) - 1
    found = np.clip(np.quantile(size, promised), _LEAST * _UPPER, _MOST * _UPPER)
    number = len(np.unique(window))
    trust = number / (number + _FEW)
    out: np.ndarray = np.exp(trust * np.log(found) + (1 - trust) * np.log(toward))
    return out


def _loss(gaps: _Gaps, mine: np.ndarray, share: float, tags: int) -> float:
    """CRPS of one class of gaps (in z units of the plant) with this much of the network's correction, widths corrected."""
    knots = _blended(gaps.knots[mine], np.full(int(mine.sum()), share))
    size = np.abs(_unit(gaps.residual[mine], knots))
    pool = _moved(size, gaps.window[mine], _UPPER)
    knots = _stretched(knots, np.broadcast_to(pool, (len(knots), len(pool))))
    apart, levels = gaps.residual[mine][:, None] - knots, np.array(LEVELS)
    pinball = np.maximum(levels * apart, (levels - 1) * apart).mean(1)
    return float((pinball * gaps.std[mine]).mean())
