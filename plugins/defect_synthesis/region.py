"""Windows: which part of a picture the network sees, and in what units.

A defect that fits is seen pixel by pixel in a window of SIDE; a larger one in a square around it, made smaller; a long
thin one in a chain of windows along it, each seeing what the earlier ones drew. The network works in local units,
(grey - level) / gain, where level is the brightness of the good surface under the mask, so that exposure cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 64
FITS = 48
"""Largest mask, in pixels, that is seen pixel by pixel in one window."""
THIN = 14.0
"""A mask that is on average thinner than this many pixels is walked along with several windows."""

GRAIN = 0.7
"""How strong the fine part of the noise is that a job begins with, 1 = as in training."""


@dataclass(frozen=True)
class Window:
    """A rectangle of the picture, pixels, that the network sees as SIDE x SIDE; it lies inside the picture."""

    x: int
    y: int
    w: int
    h: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.y, self.y + self.h), slice(self.x, self.x + self.w)

    @property
    def scale(self) -> float:
        """log2 of the picture's pixels per network pixel, 0 at native scale."""
        return math.log2(max(self.w, self.h, SIDE) / SIDE)


@dataclass(frozen=True)
class Mask:
    """A mask without the empty picture around it: pixels (h, w), uint8 0/1, with their corner at (x, y) of the picture."""

    x: int
    y: int
    pixels: np.ndarray

    def cut(self, window: Window) -> np.ndarray:
        """What the window sees of it, (window.h, window.w), 0/1."""
        seen = np.zeros((window.h, window.w), np.uint8)
        h, w = self.pixels.shape
        y0, y1 = max(self.y, window.y), min(self.y + h, window.y + window.h)
        x0, x1 = max(self.x, window.x), min(self.x + w, window.x + window.w)
        if y0 < y1 and x0 < x1:
            seen[y0 - window.y : y1 - window.y, x0 - window.x : x1 - window.x] = self.pixels[
                y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x
            ]
        return seen


@dataclass(frozen=True)
class Step:
    """One network window of a mask, and its share of it."""

    window: Window
    share: Mask


def trimmed(pixels: np.ndarray, x: int = 0, y: int = 0) -> Mask:
    """A mask that is not empty, (h, w), 0/1, cut to what is set."""
    left, top, w, h = cv2.boundingRect(pixels)
    return Mask(x + left, y + top, np.ascontiguousarray(pixels[top : top + h, left : left + w]))


def window_around(x: float, y: float, side: int, shape: tuple[int, ...]) -> Window:
    """A window of `side` centred on (x, y), moved and, where the picture is smaller, cut to lie inside it."""
    h, w = min(side, shape[0]), min(side, shape[1])
    return Window(int(np.clip(round(x - w / 2), 0, shape[1] - w)), int(np.clip(round(y - h / 2), 0, shape[0] - h)), w, h)


def plan(mask: Mask, shape: tuple[int, ...]) -> list[Step]:
    """The windows that draw this mask into a picture of `shape` (H, W, ...), in order."""
    h, w = mask.pixels.shape
    if max(w, h) > FITS and thickness(mask.pixels) < THIN:
        return _walk(mask, shape)
    side = SIDE if max(w, h) <= FITS else math.ceil(max(w, h) * SIDE / FITS)
    return [Step(window_around(mask.x + w / 2, mask.y + h / 2, side, shape), mask)]


def thickness(mask: np.ndarray) -> float:
    """Mean thickness in pixels: area over half the length of the outline."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return 2 * float(mask.sum()) / max(sum(len(o) for o in outlines), 1)


def _walk(mask: Mask, shape: tuple[int, ...]) -> list[Step]:
    """Native windows from one end of the mask to the other; each takes what is still to do in its inner square."""
    todo, steps, inner = mask.pixels.copy(), [], FITS // 2
    ys, xs = np.nonzero(todo)
    far = int(np.argmax((xs - xs[0]) ** 2 + (ys - ys[0]) ** 2))
    at = (int(xs[far]), int(ys[far]))
    while len(xs):
        near = int(np.argmin((xs - at[0]) ** 2 + (ys - at[1]) ** 2))
        close = (np.abs(xs - xs[near]) < inner) & (np.abs(ys - ys[near]) < inner)
        at = (round(float(xs[close].mean())), round(float(ys[close].mean())))
        x0, y0 = max(at[0] - inner, 0), max(at[1] - inner, 0)
        part = todo[y0 : at[1] + inner, x0 : at[0] + inner]
        steps.append(
            Step(window_around(mask.x + at[0], mask.y + at[1], SIDE, shape), trimmed(part.copy(), mask.x + x0, mask.y + y0))
        )
        part[:] = 0
        ys, xs = np.nonzero(todo)
    return steps


def shrink(picture: np.ndarray) -> np.ndarray:
    """(h, w) -> (SIDE, SIDE), float32, by area; at native scale the very pixels."""
    if picture.shape == (SIDE, SIDE):
        return picture.astype(np.float32)
    how = cv2.INTER_AREA if picture.shape[0] >= SIDE and picture.shape[1] >= SIDE else cv2.INTER_LINEAR
    return cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=how)


def shrink_mask(mask: np.ndarray) -> np.ndarray:
    """(h, w), 0/1 -> (SIDE, SIDE), float32 0/1: set where a third of the area is; never empty."""
    small = shrink(mask)
    return (small >= min(0.33, float(small.max()))).astype(np.float32)


def coloured(white: np.ndarray) -> np.ndarray:
    """White noise (SIDE, SIDE) with its slow part made stronger, float32: what the network is trained with.

    White noise averages out over a patch, so that all patches would begin, and with few steps end, at the mean tone; with
    a tone of its own in the noise each patch is darker or lighter as a whole (Guttenberg 2023, "offset noise").
    """
    slow = cv2.resize(cv2.resize(white, (4, 4), interpolation=cv2.INTER_AREA), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return white + 3.0 * slow + np.float32(24.0 * white.mean())


def start(white: np.ndarray) -> np.ndarray:
    """The noise that a job begins with: coloured, its fine part weaker than in training.

    A network this small makes too much of fine noise: surfaces come out mottled, thin lines beaded. Beginning nearer to the
    mean (the truncation of Brock et al. 2019, section 3.1) takes that away; tone and severity, the slow part, stay free.
    """
    return coloured(white) - np.float32(1 - GRAIN) * white


def units(clean: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """level and gain of a window: clean, mask (SIDE, SIDE), grey 0..255. Gain follows brightness, with a floor for the dark."""
    level = float((clean * mask).sum() / max(float(mask.sum()), 1.0))
    return level, 0.35 * level + 8.0


def change_at_full_size(change: np.ndarray, window: Window) -> np.ndarray:
    """The network's change (SIDE, SIDE) at the window's own size (h, w), float32; finer grain stays the picture's own."""
    if (window.h, window.w) == change.shape:
        return change
    return cv2.resize(change, (window.w, window.h), interpolation=cv2.INTER_CUBIC)
