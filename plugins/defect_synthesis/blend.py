"""From the network's change to the full-resolution picture: pixels outside the published mask stay bit-equal.

The change fades in from the mask's border inwards. Where it would not be seen it is left out, of the picture and of the
mask, so that no good pixel is labelled as defect: every set pixel of the published mask lies in or next to visible change.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .picture import full_scale
from .region import Mask, Window, change_at_full_size, trimmed

VISIBLE = 3.0
"""Grey levels of 255: a change that is smaller in its neighbourhood is not seen."""
COARSE = 512
"""Where a mask is longer than this many pixels, what is visible is judged on a smaller picture of it."""


def total_change(parts: Sequence[tuple[Window, Mask, np.ndarray]], mask: Mask, shape: tuple[int, ...]) -> np.ndarray:
    """The changes (64, 64), grey levels of 255, of a mask's windows, laid out over the mask: (h, w) float32, faded at its rim.

    shape: (H, W, ...) of the picture, whose own border is no outline: a defect there goes on beyond it.
    """
    h, w = mask.pixels.shape
    total = np.zeros((h, w), np.float32)
    for window, share, change in parts:
        full = change_at_full_size(change, window)
        y, x = share.y - window.y, share.x - window.x
        there = total[share.y - mask.y :, share.x - mask.x :][: share.pixels.shape[0], : share.pixels.shape[1]]
        seen = full[max(y, 0) : y + share.pixels.shape[0], max(x, 0) : x + share.pixels.shape[1]]
        into = there[max(-y, 0) :, max(-x, 0) :][: seen.shape[0], : seen.shape[1]]
        into[:] = np.where(share.pixels[max(-y, 0) :, max(-x, 0) :][: seen.shape[0], : seen.shape[1]] > 0, seen, into)
    scale = max(2.0**window.scale for window, _, _ in parts)
    return np.asarray(total * _fade(mask, shape, 1.0 + scale), np.float32)


def _fade(mask: Mask, shape: tuple[int, ...], width: float) -> np.ndarray:
    """0 outside, rising to 1 over `width` pixels from the outline."""
    h, w = mask.pixels.shape
    beyond = cv2.copyMakeBorder(mask.pixels, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    if mask.y > 0:
        beyond[0, :] = 0
    if mask.y + h < shape[0]:
        beyond[-1, :] = 0
    if mask.x > 0:
        beyond[:, 0] = 0
    if mask.x + w < shape[1]:
        beyond[:, -1] = 0
    depth = cv2.distanceTransform(beyond, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.asarray(np.clip(depth / width, 0, 1), np.float32)


def published(change: np.ndarray, mask: Mask) -> Mask:
    """The part of the mask in which the change (h, w) is visible; the whole mask where it is visible nowhere."""
    h, w = mask.pixels.shape
    shrink = max(1.0, max(h, w) / COARSE)
    size = (max(1, round(w / shrink)), max(1, round(h / shrink)))
    strength = cv2.resize(np.abs(change), size, interpolation=cv2.INTER_AREA) if shrink > 1 else np.abs(change)
    spread = max(1.5, 0.02 * max(size))
    strong = (cv2.GaussianBlur(strength, (0, 0), spread) > VISIBLE).astype(np.uint8)
    reach = round(2 * spread)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    padded = cv2.copyMakeBorder(strong, *(4 * [2 * reach]), cv2.BORDER_CONSTANT, value=0)
    seen = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    visible = (cv2.resize(seen, (w, h), interpolation=cv2.INTER_NEAREST) if shrink > 1 else seen) & mask.pixels
    return trimmed(visible, mask.x, mask.y) if visible.sum() >= 9 else mask


def blended(image: np.ndarray, change: np.ndarray, mask: Mask, shown: Mask) -> np.ndarray:
    """A copy of `image` (H, W[, channels]) with `change` (h, w of `mask`) in every colour channel where `shown` is set."""
    out: np.ndarray = image.copy()
    rows, columns = slice(shown.y, shown.y + shown.pixels.shape[0]), slice(shown.x, shown.x + shown.pixels.shape[1])
    inner = change[rows.start - mask.y : rows.stop - mask.y, columns.start - mask.x : columns.stop - mask.x]
    top = full_scale(image)
    there = out[rows, columns]
    colour = there if there.ndim == 2 else there[..., : 1 if there.shape[2] <= 2 else 3]
    added = inner * np.float32(top / 255) * shown.pixels
    summed = colour.astype(np.float32) + (added if colour.ndim == 2 else added[..., None])
    colour[:] = np.clip(np.rint(summed), 0, top).astype(image.dtype)
    return out
