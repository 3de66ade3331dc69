"""From the network's change to the full-resolution picture: pixels outside the published mask stay bit-equal.

Where the change would not be seen it is left out, of the picture and of the mask, so that no good pixel is labelled as
defect; what is left fades in from the outline inwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .picture import full_scale
from .region import Mask, Window, change_at_full_size, trimmed

VISIBLE = 3.0
"""Grey levels of 255: a change that is smaller in its neighbourhood is not seen."""
FAINT = 0.35
"""Share of a defect's RMS change below which its outskirts are not seen beside it."""
COARSE = 512
"""Where a mask is longer than this many pixels, what is visible is judged on a smaller picture of it."""


def total_change(parts: Sequence[tuple[Window, Mask, np.ndarray]], mask: Mask) -> np.ndarray:
    """The changes (64, 64), grey levels of 255, of a mask's windows, laid out over the mask: (h, w) float32."""
    h, w = mask.pixels.shape
    total = np.zeros((h, w), np.float32)
    for window, share, change in parts:
        full = change_at_full_size(change, window)
        y, x = share.y - window.y, share.x - window.x
        there = total[share.y - mask.y :, share.x - mask.x :][: share.pixels.shape[0], : share.pixels.shape[1]]
        seen = full[max(y, 0) : y + share.pixels.shape[0], max(x, 0) : x + share.pixels.shape[1]]
        into = there[max(-y, 0) :, max(-x, 0) :][: seen.shape[0], : seen.shape[1]]
        into[:] = np.where(share.pixels[max(-y, 0) :, max(-x, 0) :][: seen.shape[0], : seen.shape[1]] > 0, seen, into)
    return total


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
    soft = cv2.GaussianBlur(strength, (0, 0), spread)
    inside = soft[cv2.resize(mask.pixels, size, interpolation=cv2.INTER_NEAREST) > 0]
    usual = float(np.sqrt(np.mean(inside**2))) if inside.size else 0.0
    strong = (soft > max(VISIBLE, FAINT * usual)).astype(np.uint8)
    reach = round(2 * spread)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    pad = 2 * reach
    padded = cv2.copyMakeBorder(strong, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    seen = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[pad:-pad, pad:-pad]
    visible = (cv2.resize(seen, (w, h), interpolation=cv2.INTER_NEAREST) if shrink > 1 else seen) & mask.pixels
    visible = _whole(visible, mask.pixels) & mask.pixels
    return trimmed(visible, mask.x, mask.y) if visible.sum() >= 9 else mask


def _whole(visible: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(h, w), 0/1: enclosed gaps belong to what encloses them; crumbs beside a ten times larger piece of the same patch go."""
    _, patch = cv2.connectedComponents(mask, connectivity=8)
    outlines, _ = cv2.findContours(visible, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    pieces = [(o, int(patch[o[0, 0, 1], o[0, 0, 0]]), cv2.contourArea(o) + 0.5 * len(o)) for o in outlines]
    largest: dict[int, float] = {}
    for _, label, area in pieces:
        largest[label] = max(area, largest.get(label, 0.0))
    kept = [o for o, label, area in pieces if area >= 0.1 * largest[label]]
    return cv2.drawContours(np.zeros_like(visible), kept, -1, 1, cv2.FILLED)


def blended(image: np.ndarray, change: np.ndarray, mask: Mask, shown: Mask, rim: float) -> np.ndarray:
    """A copy of `image` (H, W[, channels]) with `change` (h, w of `mask`) in every colour channel where `shown` is set.

    The change fades in over `rim` pixels from the outline; the picture's own border is no outline, a defect goes on beyond it.
    """
    out: np.ndarray = image.copy()
    rows, columns = slice(shown.y, shown.y + shown.pixels.shape[0]), slice(shown.x, shown.x + shown.pixels.shape[1])
    inner = change[rows.start - mask.y : rows.stop - mask.y, columns.start - mask.x : columns.stop - mask.x]
    top = full_scale(image)
    there = out[rows, columns]
    colour = there if there.ndim == 2 else there[..., : 1 if there.shape[2] <= 2 else 3]
    added = inner * _fade(shown, image.shape, rim) * np.float32(top / 255)
    summed = colour.astype(np.float32) + (added if colour.ndim == 2 else added[..., None])
    colour[:] = np.clip(np.rint(summed), 0, top).astype(image.dtype)
    return out
