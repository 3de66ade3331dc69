"""What the acceptance gate measures of a defect, synthetic or real: numbers from the windows that the network would see.

Numbers are taken from windows of SIDE x SIDE, so that the picture's resolution does not matter. Used at a job by `gate.py`
and, on real defects, by training/defects_gate.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ...engines import noise
from ...engines.engine import Engine
from . import blend, picture, region
from .region import SIDE, Mask

PATCH, DIMS, SHIFT = 24, 64, 2
"""Side of the patch that is compared, numbers that are kept of it, and how far it is shifted in search of its like."""
OUTLINE = 24
"""Side of the grid on which outlines are compared."""
GRID = SIDE // 2
"""Side of the detector's answer to one window."""


@dataclass(frozen=True)
class View:
    """A defect as the gate sees it: windows (n, SIDE, SIDE), float32 0..255, with and without it, and of its mask, uint8 0/1.

    leaked: pixels of the full picture that changed outside the mask.
    """

    after: np.ndarray
    before: np.ndarray
    mask: np.ndarray
    leaked: int = 0


def view_of(image: np.ndarray, change: np.ndarray, mask: Mask, shown: Mask, rim: float) -> View:
    """What `blend.blended` makes of these, without making the whole picture (H, W[, channels])."""
    windows = [step.window for step in region.plan(shown, image.shape)]
    h, w = mask.pixels.shape
    x0, y0 = (max(min(v) - 2, 0) for v in ([mask.x, *(o.x for o in windows)], [mask.y, *(o.y for o in windows)]))
    x1 = min(max(mask.x + w, *(o.x + o.w for o in windows)) + 2, image.shape[1])
    y1 = min(max(mask.y + h, *(o.y + o.h for o in windows)) + 2, image.shape[0])
    good = image[y0:y1, x0:x1]
    here, seen = (Mask(m.x - x0, m.y - y0, m.pixels) for m in (mask, shown))
    made = blend.blended(good, change, here, seen, rim)
    moved = [region.Window(o.x - x0, o.y - y0, o.w, o.h) for o in windows]
    inside = seen.cut(region.Window(0, 0, x1 - x0, y1 - y0)) > 0
    differs = made != good
    leaked = int(((differs if differs.ndim == 2 else differs.any(2)) & ~inside).sum())
    to_grey = np.float32(255 / picture.full_scale(image))
    after, before = (_cut(picture.grey_of(p).astype(np.float32) * to_grey, moved) for p in (made, good))
    return View(after, before, _cut_mask(seen, moved), leaked)


def view_of_real(image: np.ndarray, mask: np.ndarray, windows: Sequence[region.Window] = ()) -> View:
    """A real defect, grey (H, W) 0..255 and mask (H, W) 0/1, not empty, in the windows that a job would plan for it."""
    whole = region.trimmed(mask)
    windows = windows or [step.window for step in region.plan(whole, image.shape)]
    after = _cut(image.astype(np.float32), windows)
    return View(after, after, _cut_mask(whole, windows))


def _cut(grey: np.ndarray, windows: Sequence[region.Window]) -> np.ndarray:
    return np.stack([region.shrink(grey[w.slices]) for w in windows])


def _cut_mask(mask: Mask, windows: Sequence[region.Window]) -> np.ndarray:
    return np.stack([region.shrink_mask(mask.cut(w)) for w in windows]).astype(np.uint8)


def _round(size: int) -> np.ndarray:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _wider(mask: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(cv2.dilate(mask, _round(size)), np.uint8)


def _slope(grey: np.ndarray) -> np.ndarray:
    """Size of the gradient, grey levels per pixel."""
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8))


def look(view: View) -> dict[str, float]:
    """contrast: |pixel - ring| under the mask over that in the ring around it. completeness: gradient along the outline over
    that in the ring. seam: gradient just outside the outline over that of the good picture. What cannot be told is left out.
    """
    sums = np.zeros((6, 2))
    for after, before, mask in zip(view.after, view.before, view.mask):
        wide = _wider(mask, 5)
        ring = (_wider(mask, 15) & (1 - wide)) > 0
        border = (_wider(mask, 3) & (1 - np.asarray(cv2.erode(mask, _round(5)), np.uint8))) > 0
        beside = (wide & (1 - mask)) > 0
        soft = cv2.GaussianBlur(after, (0, 0), 0.7)
        slope = _slope(soft)
        rows = [(_slope(after), beside), (_slope(before), beside)]
        if ring.sum() >= 20:
            away = np.abs(soft - np.median(soft[ring]))
            rows = [(away, mask > 0), (away, ring), (slope, border), (slope, ring), *rows]
        for k, (values, where) in enumerate(rows, 6 - len(rows)):
            sums[k] += values[where].sum(), where.sum()
    mean = sums[:, 0] / np.maximum(sums[:, 1], 1)
    scores = {}
    if sums[1, 1]:
        scores = {"contrast": float(mean[0] / (mean[1] + 1)), "completeness": float(mean[2] / (mean[3] + 0.5))}
    if sums[4, 1]:
        scores["seam"] = float((mean[4] + 1) / (mean[5] + 1))
    return scores


def detector_input(windows: np.ndarray) -> np.ndarray:
    """Windows (n, SIDE, SIDE), grey 0..255, in units in which exposure cancels: (n, 1, SIDE, SIDE) float32."""
    level = np.median(windows, (1, 2))[:, None, None]
    return np.clip((windows - level) / (0.35 * level + 8), -4, 4).astype(np.float32)[:, None]


def respond(detector: Engine, windows: np.ndarray, most: int = 8) -> np.ndarray:
    """The detector's logits (n, GRID, GRID) for windows (n, SIDE, SIDE), at most so many in one call."""
    fed = detector_input(windows)
    parts = [np.array(detector.run({"x": fed[i : i + most]})["out"][:, 0]) for i in range(0, len(fed), most)]
    return np.concatenate(parts)


def on_grid(mask: np.ndarray) -> np.ndarray:
    """Masks (n, SIDE, SIDE) 0/1 on the detector's grid: (n, GRID, GRID) bool, set where half of the area is, never empty."""
    share = mask.reshape(-1, GRID, 2, GRID, 2).mean((2, 4))
    return np.asarray(share >= np.minimum(0.5, np.maximum(share.max((1, 2), keepdims=True), 1e-6)))


def agreement(response: np.ndarray, cells: np.ndarray, level: float) -> float:
    """IoU of the mask's cells (n, GRID, GRID) with what the detector calls defect on and near them, all windows together."""
    near = np.stack([_wider(c.astype(np.uint8), 9) for c in cells]) > 0
    found = (response > level) & near
    return float((found & cells).sum() / max((found | cells).sum(), 1))


def coverage(response: np.ndarray, cells: np.ndarray, level: float) -> float:
    """Share of the mask's cells (n, GRID, GRID) that the detector calls defect."""
    return float(((response > level) & cells).sum() / max(cells.sum(), 1))


@functools.cache
def _projection() -> np.ndarray:
    """(PATCH ** 2, DIMS): random, and so nearly orthonormal, directions; of a patch one part in nine is kept."""
    return noise.gaussian(2718, 0, 0, (PATCH * PATCH, DIMS)) / np.float32(PATCH)


def descriptors(view: View) -> np.ndarray:
    """(n, DIMS) float32 of unit length: the high-pass patch around the defect, mirrored, turned and shifted; as it is at first.

    Distances between patches survive a random projection (Johnson & Lindenstrauss 1984); the patches do not.
    """
    k = int(view.mask.sum((1, 2)).argmax())
    after, mask = view.after[k], view.mask[k]
    fine = after - cv2.GaussianBlur(after, (0, 0), 4.0)
    fine = fine * cv2.GaussianBlur(_wider(mask, 5).astype(np.float32), (0, 0), 1.5)
    weight = fine**2 * mask + 1e-3 * mask
    y, x = (int(round(float((weight.sum(axis) * np.arange(SIDE)).sum() / weight.sum()))) for axis in (1, 0))
    pad = PATCH // 2 + SHIFT
    around = np.pad(fine, pad)[y : y + 2 * pad, x : x + 2 * pad]
    shifted = np.lib.stride_tricks.sliding_window_view(around, (PATCH, PATCH)).reshape(-1, PATCH, PATCH)
    middle = len(shifted) // 2
    order = [middle, *(i for i in range(len(shifted)) if i != middle)]
    turned = [t[:, ::a, ::b] for t in (shifted[order], shifted[order].transpose(0, 2, 1)) for a in (1, -1) for b in (1, -1)]
    projected = np.concatenate([t.reshape(len(order), -1) for t in turned]) @ _projection()
    return projected / (np.linalg.norm(projected, axis=1, keepdims=True) + np.float32(1e-6))


def outline(view: View) -> tuple[np.ndarray, float]:
    """The mask brought to OUTLINE x OUTLINE, its proportions kept: (OUTLINE ** 2,) bool; and its area in window pixels."""
    k = int(view.mask.sum((1, 2)).argmax())
    x, y, w, h = cv2.boundingRect(view.mask[k])
    side = max(w, h)
    square = np.zeros((side, side), np.uint8)
    top, left = (side - h) // 2, (side - w) // 2
    square[top : top + h, left : left + w] = view.mask[k][y : y + h, x : x + w] * 255
    small = cv2.resize(square, (OUTLINE, OUTLINE), interpolation=cv2.INTER_AREA) > 127
    return small.ravel(), float(view.mask.sum())


def likeness_of_outlines(mine: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of an outline (OUTLINE ** 2,) in its best mirror image with each of others (n, OUTLINE ** 2): (n,)."""
    square = mine.reshape(OUTLINE, OUTLINE).astype(np.float32)
    turned = np.stack([t[::a, ::b].ravel() for t in (square, square.T) for a in (1, -1) for b in (1, -1)])
    both = others.astype(np.float32, copy=False) @ turned.T
    either = others.sum(1, keepdims=True) + square.sum() - both
    return np.asarray((both / np.maximum(either, 1)).max(1))


def surface(grey: np.ndarray, top: float = 255.0) -> dict[str, float]:
    """What a good surface, grey (H, W) 0..top, is like: grain and waviness in units of its brightness, medians over windows."""
    side = min(SIDE, *grey.shape)
    rows, columns = (np.linspace(0, n - side, 6).astype(int) for n in grey.shape)
    scale = np.float32(255 / top)
    windows = [grey[y : y + side, x : x + side].astype(np.float32) * scale for y in rows for x in columns]
    levels = np.array([np.median(w) for w in windows])
    lit = [w for w, level in zip(windows, levels) if level >= 0.5 * np.percentile(levels, 80)]
    grain, waves = [], []
    for w in lit:
        gain = 0.35 * float(np.median(w)) + 8
        grain.append(float(np.abs(w - cv2.GaussianBlur(w, (0, 0), 1.5)).mean()) / gain)
        waves.append(float(cv2.GaussianBlur(w, (0, 0), 3.0).std()) / gain)
    return {"grain": float(np.median(grain)), "waves": float(np.median(waves))}
