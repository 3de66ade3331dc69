"""A rehearsal as a picture: temperature and limit, power and clock, operating points and jobs over time, with and without."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ...demo.draw import FAINT, GREY, INK, PAPER, save, text
from ..rehearsal import Outcome, Row

_WIDTH, _LEFT, _RIGHT, _TOP = 1100, 80, 190, 50
_HEIGHTS = (230, 130, 110, 150)
"""Temperature, power, clock and pace, operating points."""
_GAP, _BOTTOM = 30, 40
_GOVERNED, _ALONE, _LIMIT, _AMBIENT, _URGENT = (150, 90, 20), (150, 150, 225), (30, 30, 210), (40, 140, 40), (0, 140, 220)
Scale = Callable[[float], int]


def plot(to: Path, governed: Outcome, alone: Outcome, title: str, limit_c: float, names: Sequence[str]) -> None:
    """Writes the PNG; `OSError` where it cannot be written."""
    height = _TOP + sum(_HEIGHTS) + _GAP * (len(_HEIGHTS) - 1) + _BOTTOM
    image = np.full((height, _WIDTH, 3), PAPER, np.uint8)
    text(image, title[:120], (_LEFT, 24), 0.5, INK, 1)
    end = max(1.0, governed.rows[-1].at)
    x: Scale = lambda t: round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * t / end)  # noqa: E731
    tops = [_TOP + sum(_HEIGHTS[:i]) + i * _GAP for i in range(len(_HEIGHTS))]
    rows = governed.rows
    temps = [r.temp_c for r in rows] + [r.temp_c for r in alone.rows] + [limit_c] + [r.ambient_c for r in rows]
    y = _panel(image, tops[0], _HEIGHTS[0], "temperature, C", min(temps), max(temps), x, end)
    _line(image, alone.rows, x, y, lambda r: r.temp_c, _ALONE)
    _line(image, rows, x, y, lambda r: r.ambient_c, _AMBIENT)
    cv2.line(image, (x(0), y(limit_c)), (x(end), y(limit_c)), _LIMIT, 1, cv2.LINE_AA)
    _line(image, rows, x, y, lambda r: r.temp_c, _GOVERNED, 2)
    _legend(
        image,
        tops[0],
        (("with the governor", _GOVERNED), ("without", _ALONE), (f"limit {limit_c:g} C", _LIMIT), ("ambient", _AMBIENT)),
    )
    watts = [r.power_w for r in rows] + [r.power_w for r in alone.rows]
    y = _panel(image, tops[1], _HEIGHTS[1], "power of the board, W", 0.0, max(watts), x, end)
    _line(image, _mean(alone.rows), x, y, lambda r: r.power_w, _ALONE)
    _line(image, _mean(rows), x, y, lambda r: r.power_w, _GOVERNED)
    y = _panel(image, tops[2], _HEIGHTS[2], "clock and pace, share", 0.0, 1.0, x, end)
    _line(image, _mean(alone.rows), x, y, lambda r: r.clock, _ALONE)
    _line(image, _mean(rows), x, y, lambda r: r.duty, _AMBIENT)
    _line(image, _mean(rows), x, y, lambda r: r.clock, _GOVERNED)
    _legend(image, tops[2], (("clock", _GOVERNED), ("clock without", _ALONE), ("pace of bulk", _AMBIENT)))
    _points(image, tops[3], rows, x, names, end)
    text(image, "hours" if end > 7200 else "minutes", (_WIDTH // 2 - 60, height - 6), 0.45, GREY, 1)
    save(to, image)


def _panel(image: np.ndarray, top: int, height: int, words: str, low: float, high: float, x: Scale, end: float) -> Scale:
    """Draws a frame with its grid; value -> pixel."""
    low, high = (low - 0.03 * (high - low), high + 0.03 * (high - low)) if high > low else (low - 1, high + 1)
    y: Scale = lambda v: round(top + height - (v - low) / (high - low) * height)  # noqa: E731
    step = _step((high - low) / 4)
    for k in range(math.ceil(low / step), math.floor(high / step) + 1):
        cv2.line(image, (x(0), y(k * step)), (x(end), y(k * step)), FAINT, 1)
        text(image, f"{k * step:g}", (_LEFT - 45, y(k * step) + 5), 0.42, GREY, 1)
    _time(image, top, height, x, end)
    text(image, words, (_LEFT, top - 6), 0.45, INK, 1)
    return y


def _time(image: np.ndarray, top: int, height: int, x: Scale, end: float) -> None:
    unit = 3600.0 if end > 7200 else 60.0
    step = _step(end / unit / 8)
    for k in range(math.floor(end / unit / step) + 1):
        at = x(k * step * unit)
        cv2.line(image, (at, top), (at, top + height), FAINT, 1)
        text(image, f"{k * step:g}", (at - 8, top + height + 15), 0.38, GREY, 1)


def _step(rough: float) -> float:
    """The nearest of 1, 2 or 5 times a power of ten from above."""
    ten = 10.0 ** math.floor(math.log10(max(rough, 1e-9)))
    return next(m * ten for m in (1, 2, 5, 10) if m * ten >= rough * (1 - 1e-9))


def _mean(rows: Sequence[Row]) -> list[Row]:
    """Means over as many rows as one pixel holds, so that an alternation shows as what it amounts to."""
    n = max(10, round(len(rows) / (_WIDTH - _LEFT - _RIGHT)))
    out = []
    for i in range(0, len(rows), n):
        part = rows[i : i + n]
        means = {k: sum(getattr(r, k) for r in part) / len(part) for k in ("power_w", "clock", "duty")}
        out.append(replace(part[0], **means))
    return out


def _line(
    image: np.ndarray,
    rows: Sequence[Row],
    x: Scale,
    y: Scale,
    of: Callable[[Row], float],
    colour: tuple[int, int, int],
    thick: int = 1,
) -> None:
    points = np.array([(x(r.at), y(of(r))) for r in rows], np.int32).reshape(-1, 1, 2)
    cv2.polylines(image, [points], False, colour, thick, cv2.LINE_AA)


def _points(image: np.ndarray, top: int, rows: Sequence[Row], x: Scale, names: Sequence[str], end: float) -> None:
    """One row per operating point that ran, dark where it ran more of the time; the last row is real-time work."""
    used = sorted({r.choice for r in rows if r.choice >= 0}, key=lambda c: -sum(r.choice == c for r in rows))[:6]
    text(image, "operating points of bulk work, real-time work", (_LEFT, top - 6), 0.45, INK, 1)
    _time(image, top, _HEIGHTS[3], x, end)
    height = _HEIGHTS[3] // (len(used) + 1)
    lines = [(names[c], [r.choice == c for r in rows], _GOVERNED) for c in used]
    lines.append(("real-time work", [r.realtime for r in rows], _URGENT))
    n = max(10, round(len(rows) / (_WIDTH - _LEFT - _RIGHT)))
    for k, (words, ran, colour) in enumerate(lines):
        y = top + k * height
        for i in range(0, len(rows), n):
            part = rows[i : i + n]
            share = sum(ran[i : i + n]) / len(part)
            if share > 0:
                ink = tuple(round(255 - (255 - c) * (0.25 + 0.75 * share)) for c in colour)
                cv2.rectangle(image, (x(part[0].at), y + 2), (x(part[-1].at + 1), y + height - 2), ink, -1)
        text(image, words, (_WIDTH - _RIGHT + 8, y + height // 2 + 4), 0.36, INK, 1)


def _legend(image: np.ndarray, top: int, lines: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
    for k, (words, colour) in enumerate(lines):
        y = top + 14 + 20 * k
        cv2.line(image, (_WIDTH - _RIGHT + 8, y - 4), (_WIDTH - _RIGHT + 30, y - 4), colour, 2, cv2.LINE_AA)
        text(image, words, (_WIDTH - _RIGHT + 36, y), 0.42, INK, 1)
