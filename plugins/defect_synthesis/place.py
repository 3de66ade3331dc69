"""Where defects may go: from the request's region to masks, one per item.

Shapes are drawn on a grid of at most a million points over the region, so that a picture of any size costs the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ...config.refusal import Refusal
from . import masks
from .params import Region
from .region import Mask, Window, trimmed

GRID = 1_000_000
MARGIN = 40


@dataclass(frozen=True)
class Place:
    """Where masks are drawn: a grid over `window` of the picture, `factor` pixels to a point; or one mask that is given."""

    window: Window
    factor: float
    allowed: np.ndarray
    part: np.ndarray
    shape: tuple[int, int]
    limit: np.ndarray | None = None
    given: Mask | None = None

    def draw(self, shape: masks.Shape, rng: np.random.Generator) -> Mask:
        """A mask of this shape, not empty, inside the region to the pixel."""
        if self.given is not None:
            return self.given
        unit = math.sqrt(self.shape[0] * self.shape[1]) / shape.field / self.factor
        small = trimmed(masks.draw(shape, self.allowed, rng, unit, self.part))
        if self.factor == 1 and self.limit is None:
            return Mask(small.x + self.window.x, small.y + self.window.y, small.pixels)
        return self._enlarged(small)

    def _enlarged(self, small: Mask) -> Mask:
        """The grid's mask at the picture's scale, its outline smooth, cut by the region's own outline."""
        f, w = self.factor, self.window
        x0, y0 = max(math.floor((small.x - 1) * f), 0), max(math.floor((small.y - 1) * f), 0)
        h, wide = small.pixels.shape
        x1, y1 = min(math.ceil((small.x + wide + 1) * f), w.w), min(math.ceil((small.y + h + 1) * f), w.h)
        back = np.array([[1 / f, 0, (x0 + 0.5) / f - 0.5 - small.x], [0, 1 / f, (y0 + 0.5) / f - 0.5 - small.y]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        soft = cv2.warpAffine(small.pixels * 255, back, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        pixels = (soft > 127).astype(np.uint8)
        if self.limit is not None:
            pixels &= self.limit[y0:y1, x0:x1]
        if not pixels.any():
            free = np.argwhere(self.limit) if self.limit is not None else np.array([[y0, x0]])
            pixels, (y0, x0) = np.ones((1, 1), np.uint8), (int(v) for v in free[len(free) // 2])
        return trimmed(pixels, w.x + x0, w.y + y0)


def place_of(grey: np.ndarray, region: Region, mask: np.ndarray | None = None) -> Place:
    """The place for a picture `grey` (H, W); `mask` (H, W) is the decoded mask picture where the region names one."""
    height, width = grey.shape
    if mask is not None:
        return Place(Window(0, 0, width, height), 1, _NOTHING, _NOTHING, grey.shape, given=_given(grey, region, mask))
    if region.box is not None:
        x, y, w, h = region.box
        if x + w > width or y + h > height:
            raise Refusal(
                "bad-request",
                f"the box ends at ({x + w}, {y + h}), outside the picture of {width} x {height}",
                "params.region.box",
            )
        limit = np.zeros((height, width), np.uint8)
        limit[y : y + h, x : x + w] = 1
    elif region.polygon is not None:
        points = np.array(region.polygon, np.float64)
        if points[:, 0].max() > width or points[:, 1].max() > height:
            far = ", ".join(f"{v:g}" for v in points.max(0))
            raise Refusal(
                "bad-request",
                f"the polygon reaches ({far}), outside the picture of {width} x {height}",
                "params.region.polygon",
            )
        limit = np.zeros((height, width), np.uint8)
        cv2.fillPoly(limit, [np.round((points - 0.5) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        if not limit.any():
            raise Refusal("bad-request", "the polygon holds not one pixel of the picture", "params.region.polygon")
    else:
        return _grid(grey, Window(0, 0, width, height), None)
    x, y, w, h = cv2.boundingRect(limit)
    x0, y0, x1, y1 = max(x - MARGIN, 0), max(y - MARGIN, 0), min(x + w + MARGIN, width), min(y + h + MARGIN, height)
    window = Window(x0, y0, x1 - x0, y1 - y0)
    return _grid(grey, window, np.ascontiguousarray(limit[window.slices]))


_NOTHING = np.ones((1, 1), np.uint8)


def _grid(grey: np.ndarray, window: Window, limit: np.ndarray | None) -> Place:
    factor = max(1.0, math.sqrt(window.w * window.h / GRID))
    size = (max(1, round(window.w / factor)), max(1, round(window.h / factor)))
    small = cv2.resize(grey[window.slices], size, interpolation=cv2.INTER_AREA) if factor > 1 else grey[window.slices]
    part = masks.part_of(small)
    allowed = part
    if limit is not None:
        inside = cv2.resize(limit, size, interpolation=cv2.INTER_NEAREST) if factor > 1 else limit
        inside = inside if inside.any() else np.ones_like(inside)
        allowed = inside & part if (inside & part).any() else inside
    return Place(window, factor, allowed, part, grey.shape, limit)


def _given(grey: np.ndarray, region: Region, mask: np.ndarray) -> Mask:
    source = "path" if region.mask is not None and region.mask.path is not None else "data"
    field = f"params.region.mask.{source}"
    if mask.shape != grey.shape:
        found, wanted = (f"{s[1]} x {s[0]}" for s in (mask.shape, grey.shape))
        raise Refusal("input", f"the mask is {found}, the picture {wanted}; they must be of one size", field)
    pixels = (mask > (32767 if mask.dtype == np.uint16 else 127)).astype(np.uint8)
    if not pixels.any():
        raise Refusal(
            "input", f"the mask is empty; expected 255 where the defect shall be, the largest value is {mask.max()}", field
        )
    return trimmed(pixels)
