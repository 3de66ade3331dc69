"""Pictures for people: a contact sheet of defects and a plot of measured against repaired sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .plant import Row

_FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK, GREY, FAINT = (255, 255, 255), (40, 40, 40), (130, 130, 130), (228, 228, 228)
_TRUTH, _MEASURED, _REPAIRED, _BAND = (150, 150, 150), (150, 90, 20), (30, 30, 210), (205, 215, 255)


@dataclass(frozen=True)
class Defect:
    """One synthetic picture: the good one it was made of, the result, its mask, and where the defect is."""

    name: str
    good: Path
    synthetic: Path
    mask: Path
    box: tuple[int, int, int, int]


def contact_sheet(defects: Sequence[Defect], to: Path, per_class: int = 2, tile: int = 190) -> None:
    """One row per class: whole part with the place marked, then good | mask | synthetic around the defect, enlarged."""
    classes = sorted({d.name for d in defects})
    strips = [[_strip(d, tile) for d in defects if d.name == name][:per_class] for name in classes]
    width = max((sum(s.shape[1] + 24 for s in row) for row in strips), default=400)
    rows = [_caption(width)]
    for name, row in zip(classes, strips):
        band = np.full((tile + 42, width, 3), PAPER, np.uint8)
        text(band, name, (8, 22), 0.6, INK, 1)
        x = 8
        for strip in row:
            band[32 : 32 + tile, x : x + strip.shape[1]] = strip
            x += strip.shape[1] + 24
        rows.append(band)
    save(to, np.vstack(rows))


def _strip(d: Defect, tile: int) -> np.ndarray:
    good, synthetic, mask = (_read(p) for p in (d.good, d.synthetic, d.mask))
    x, y, w, h = d.box
    height, width = synthetic.shape[:2]
    side = min(max(72, int(max(w, h) * 1.6)), height, width)
    left = min(max(x + w // 2 - side // 2, 0), width - side)  # the square around the defect, moved into the picture
    top = min(max(y + h // 2 - side // 2, 0), height - side)
    whole = synthetic.copy()
    line = max(1, round(max(height, width) / 300))
    cv2.rectangle(whole, (left, top), (left + side, top + side), (40, 60, 230), line)
    pictures = [_fit(whole, tile)]
    for picture in (good, mask, synthetic):
        crop = picture[top : top + side, left : left + side]
        pictures.append(cv2.resize(crop, (tile, tile), interpolation=cv2.INTER_CUBIC if side < tile else cv2.INTER_AREA))
    gap = np.full((tile, 4, 3), PAPER, np.uint8)
    return np.hstack([part for p in pictures for part in (p, gap)][:-1])


def _caption(width: int) -> np.ndarray:
    band = np.full((34, width, 3), PAPER, np.uint8)
    text(band, "whole part, then enlarged: good | mask | synthetic defect", (8, 22), 0.5, GREY, 1)
    return band


def sensor_plot(
    tags: Sequence[str],
    rows: Mapping[int, Row],
    repaired: Mapping[tuple[int, str], tuple[float, float, float]],
    period: float,
    to: Path,
) -> None:
    """One panel per tag: truth grey, measured blue, imputed red with its 5-95 % band.

    rows: by period number. repaired: (period number, tag) -> (value, q05, q95).
    """
    numbers = sorted(rows)
    width, height, left = 1500, 150, 150
    x_of = {n: left + round((n - numbers[0]) / max(1, numbers[-1] - numbers[0]) * (width - left - 20)) for n in numbers}
    panels = [_legend(width)]
    for k, tag in enumerate(tags):
        panel = np.full((height, width, 3), PAPER, np.uint8)
        real = np.array([rows[n].truth[k] for n in numbers])
        ends = [v for n in numbers if (n, tag) in repaired for v in repaired[n, tag][1:]]
        seen = real[np.isfinite(real)]
        low, high = (float(f(np.concatenate([seen, ends]))) for f in (np.min, np.max)) if len(seen) else (0.0, 1.0)
        span = (high - low) or 1.0

        def y(v: float, low: float = low, span: float = span) -> int:
            return round(height - 12 - (v - low) / span * (height - 24))

        cv2.line(panel, (left, height - 1), (width - 20, height - 1), FAINT, 1)
        text(panel, tag[:16], (10, height // 2), 0.5, INK, 1)
        text(panel, f"{high:.4g}", (92, 18), 0.38, GREY, 1)
        text(panel, f"{low:.4g}", (92, height - 8), 0.38, GREY, 1)
        for run in _runs([n for n in numbers if (n, tag) in repaired]):
            _draw_band(panel, run, tag, repaired, x_of, y)
        points = [(x_of[n], y(v)) for n, v in zip(numbers, real) if np.isfinite(v)]
        cv2.polylines(panel, [np.array(points, np.int32)], False, _TRUTH, 1, cv2.LINE_AA)
        for n in numbers:
            sent = rows[n].delivered[k]
            if sent is not None:
                cv2.circle(panel, (x_of[n], y(sent)), 2, _MEASURED, -1, cv2.LINE_AA)
            elif (n, tag) in repaired:
                cv2.circle(panel, (x_of[n], y(repaired[n, tag][0])), 2, _REPAIRED, -1, cv2.LINE_AA)
        panels.append(panel)
    axis = np.full((30, width, 3), PAPER, np.uint8)
    for n in numbers[:: max(1, round(5 / period))]:
        text(axis, f"{(n - numbers[0]) * period:.0f} s", (x_of[n] - 8, 18), 0.4, GREY, 1)
    save(to, np.vstack([*panels, axis]))


def _draw_band(panel, run, tag, repaired, x_of, y) -> None:  # type: ignore[no-untyped-def]  # a closure of sensor_plot in all but place
    """The 5-95 % band over consecutive imputed periods; a single one gets a bar."""
    upper = [(x_of[n], y(repaired[n, tag][2])) for n in run]
    lower = [(x_of[n], y(repaired[n, tag][1])) for n in run]
    if len(run) == 1:
        (x, top), (_, bottom) = upper[0], lower[0]
        cv2.rectangle(panel, (x - 1, top), (x + 1, bottom), _BAND, -1)
    else:
        cv2.fillPoly(panel, [np.array(upper + lower[::-1], np.int32)], _BAND, cv2.LINE_AA)


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Consecutive numbers together."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return runs


def _legend(width: int) -> np.ndarray:
    band = np.full((36, width, 3), PAPER, np.uint8)
    x = 150
    for colour, words in ((_TRUTH, "truth"), (_MEASURED, "measured"), (_REPAIRED, "imputed"), (_BAND, "5-95 % band")):
        cv2.rectangle(band, (x, 12), (x + 18, 24), colour, -1)
        text(band, words, (x + 26, 23), 0.5, INK, 1)
        x += 150
    return band


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path}: not a picture")
    return picture


def _fit(picture: np.ndarray, tile: int) -> np.ndarray:
    """The whole picture at height `tile`."""
    width = max(1, round(picture.shape[1] * tile / picture.shape[0]))
    return cv2.resize(picture, (min(width, 2 * tile), tile), interpolation=cv2.INTER_AREA)


def text(image: np.ndarray, words: str, at: tuple[int, int], size: float, colour: tuple[int, int, int], thick: int) -> None:
    """Writes `words` into the picture (H, W, 3), their lower left corner `at`."""
    cv2.putText(image, words, at, _FONT, size, colour, thick, cv2.LINE_AA)


def save(to: Path, image: np.ndarray) -> None:
    """The picture as a file; `OSError` where it cannot be written."""
    if not cv2.imwrite(str(to), image):
        raise OSError(f"{to}: cannot be written")
