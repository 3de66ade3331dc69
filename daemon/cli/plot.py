"""A calibration as a picture: time of a sample across, distance upward, both logarithmic; the frontier filled and named."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ...demo.draw import FAINT, GREY, INK, PAPER, save, text
from ..calibration import Calibration
from ..core.frontier import points

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1100, 700, 90, 30, 70, 60
_COLOURS = ((150, 90, 20), (30, 30, 210), (40, 140, 40), (160, 40, 140), (0, 140, 220))
"""One per variant, BGR."""


def plot(calibration: Calibration, to: Path) -> None:
    """Writes the PNG; `OSError` where it cannot be written."""
    every = points(calibration.qualities, calibration.speeds)
    x = _axis([p.sample_ms for p in every], _LEFT, _WIDTH - _RIGHT)
    y = _axis([p.distance for p in every], _HEIGHT - _BOTTOM, _TOP)
    image = np.full((_HEIGHT, _WIDTH, 3), PAPER, np.uint8)
    _grid(image, x, [p.sample_ms for p in every], upright=True)
    _grid(image, y, [p.distance for p in every], upright=False)
    variants = list(dict.fromkeys(p.variant for p in every))
    colours = {v: _COLOURS[i % len(_COLOURS)] for i, v in enumerate(variants)}
    best = set(calibration.frontier)
    for p in every:
        if p not in best:
            cv2.circle(image, (x(p.sample_ms), y(p.distance)), 3, colours[p.variant], 1, cv2.LINE_AA)
    named: set[tuple[str, int]] = set()
    for p in calibration.frontier:
        at = x(p.sample_ms), y(p.distance)
        cv2.circle(image, at, 6, colours[p.variant], -1, cv2.LINE_AA)
        if (p.variant, p.steps) not in named:
            text(image, f"{p.variant} {p.steps}", (at[0] + 9, at[1] - 7), 0.42, INK, 1)
            named.add((p.variant, p.steps))
    _legend(image, calibration, colours)
    save(to, image)


def _axis(values: Sequence[float], low: int, high: int) -> Callable[[float], int]:
    """Value -> pixel on a logarithmic axis that holds all values."""
    ends = _range(values)
    a, b = math.log(ends[0]), math.log(ends[1])
    return lambda v: round(low + (math.log(max(v, ends[0])) - a) / (b - a) * (high - low))


def _range(values: Sequence[float]) -> tuple[float, float]:
    positive = [v for v in values if v > 0] or [1.0]
    return min(positive) / 1.3, max(positive) * 1.3


def _grid(image: np.ndarray, place: Callable[[float], int], values: Sequence[float], upright: bool) -> None:
    """Lines at 1, 2, 3, 5 and 7 times powers of ten, with their values."""
    low, high = _range(values)
    ticks = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 3, 5, 7)]
    for tick in (t for t in ticks if low <= t <= high):
        p = place(tick)
        if upright:
            cv2.line(image, (p, _TOP), (p, _HEIGHT - _BOTTOM), FAINT, 1)
            text(image, f"{tick:g}", (p - 12, _HEIGHT - _BOTTOM + 20), 0.42, GREY, 1)
        else:
            cv2.line(image, (_LEFT, p), (_WIDTH - _RIGHT, p), FAINT, 1)
            text(image, f"{tick:g}", (_LEFT - 60, p + 5), 0.42, GREY, 1)


def _legend(image: np.ndarray, calibration: Calibration, colours: dict[str, tuple[int, int, int]]) -> None:
    here = calibration.fingerprint
    text(image, f"{calibration.model} {calibration.version} on {here.board}, {here.runtime}"[:110], (_LEFT, 26), 0.55, INK, 1)
    text(image, "time of a sample, ms", (_WIDTH // 2 - 70, _HEIGHT - 12), 0.5, GREY, 1)
    text(image, "distance to many fp32 steps", (10, _TOP - 12), 0.5, GREY, 1)
    at = _LEFT + 260
    for variant, colour in colours.items():
        cv2.circle(image, (at, _TOP - 17), 6, colour, -1, cv2.LINE_AA)
        text(image, variant, (at + 12, _TOP - 12), 0.5, INK, 1)
        at += 100
    text(image, "filled: on the frontier, with its steps", (at, _TOP - 12), 0.5, GREY, 1)
