"""What a real defect's tile would look like without it: the training pair that no camera delivers.

The masked area is filled with texture of the same picture, shifted to where it continues the surroundings best and
matched to their brightness, so that the network cannot tell filled pixels from good ones; patches too large for that
are levelled instead, keeping their own grain. And the reverse: a real defect put onto another good picture.
"""

from __future__ import annotations

import cv2
import numpy as np


def components(mask: np.ndarray, least: int = 12) -> list[np.ndarray]:
    """The separate defects in a mask (H, W), 0/1; ones nearer than some pixels count as one."""
    near = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11)))
    count, labels = cv2.connectedComponents(near)
    found = [(mask & (labels == i)).astype(np.uint8) for i in range(1, count)]
    return [one for one in found if one.sum() >= least]


def without(image: np.ndarray, mask: np.ndarray, blocked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` (H, W), float32 grey, with good surface under `mask`, 0/1. `blocked`: no texture is taken from there."""
    x, y, w, h = cv2.boundingRect(mask)
    shift = None if mask.mean() > 0.12 else _best_shift(image, mask, blocked, rng)
    if shift is None:
        return _levelled(image, mask)
    dx, dy = shift
    clean: np.ndarray = image.copy()
    pad = 24
    y0, y1, x0, x1 = max(y - pad, 0), min(y + h + pad, image.shape[0]), max(x - pad, 0), min(x + w + pad, image.shape[1])
    m = mask[y0:y1, x0:x1]
    source = cv2.warpAffine(
        image,
        np.array([[1, 0, -(x0 + dx)], [0, 1, -(y0 + dy)]], np.float32),
        (x1 - x0, y1 - y0),
        borderMode=cv2.BORDER_REFLECT_101,
    )
    here = image[y0:y1, x0:x1]
    ring = (cv2.dilate(m, np.ones((13, 13), np.uint8)) & (1 - blocked[y0:y1, x0:x1]) & (1 - m)).astype(np.float32)
    ratio = np.log((here + 8) / (source + 8)) * ring
    spread = max(6.0, 0.25 * max(w, h))
    membrane = cv2.GaussianBlur(ratio, (0, 0), spread) / (cv2.GaussianBlur(ring, (0, 0), spread) + 1e-4)
    filled = np.clip((source + 8) * np.exp(membrane) - 8, 0, 255)
    clean[y0:y1, x0:x1] = np.where(m > 0, filled, here)
    return clean


def _best_shift(image: np.ndarray, mask: np.ndarray, blocked: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """One of the few best of many random shifts by what lies around the mask; None where no source is free."""
    height, width = image.shape
    x, y, w, h = cv2.boundingRect(mask)
    around = cv2.dilate(mask, np.ones((15, 15), np.uint8)) & (1 - blocked)
    ry, rx = np.nonzero(around & (1 - mask))
    my, mx = np.nonzero(mask)
    if len(ry) < 20:
        return None
    keep = rng.permutation(len(ry))[:600]
    ry, rx = ry[keep], rx[keep]
    keep = rng.permutation(len(my))[:400]
    my, mx = my[keep], mx[keep]
    scored = []
    for n in range(260):
        dx, dy = int(rng.integers(-width // 2, width // 2)), int(rng.integers(-height // 2, height // 2))
        dx, dy = (0, dy) if n % 3 == 0 else (dx, 0) if n % 3 == 1 else (dx, dy)
        sy, sx = my + dy, mx + dx
        if sy.min() < 0 or sx.min() < 0 or sy.max() >= height or sx.max() >= width or blocked[sy, sx].any():
            continue
        qy, qx = np.clip(ry + dy, 0, height - 1), np.clip(rx + dx, 0, width - 1)
        difference = image[ry, rx] - image[qy, qx]
        scored.append((float(np.abs(difference - np.median(difference)).mean() + 0.3 * abs(np.median(difference))), dx, dy))
    if not scored:
        return None
    scored.sort()
    _, dx, dy = scored[int(rng.integers(min(4, len(scored))))]
    return dx, dy


def _levelled(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The brightness under the mask brought to that of the surroundings, step at the border gone, grain kept."""
    inside, outside = _mean_over(image, mask.astype(np.float32), 14.0), _mean_over(image, 1.0 - mask, 10.0)
    far = _mean_over(image, 1.0 - mask, 60.0)
    weight = cv2.GaussianBlur((1.0 - mask).astype(np.float32), (0, 0), 10.0)
    target = far + (outside - far) * np.clip(weight / 0.2, 0, 1)
    flat = np.clip((image + 4) * (target + 4) / (inside + 4) - 4, 0, 255)
    return np.where(mask > 0, flat, image).astype(np.float32)


def _mean_over(image: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Local mean over the weighted pixels alone."""
    weight = weight.astype(np.float32)
    top, bottom = cv2.GaussianBlur(image * weight, (0, 0), sigma), cv2.GaussianBlur(weight, (0, 0), sigma)
    return np.where(bottom > 1e-3, top / np.maximum(bottom, 1e-3), float((image * weight).sum() / weight.sum())).astype(
        np.float32
    )


def transplant(
    defect: np.ndarray, clean: np.ndarray, mask: np.ndarray, good: np.ndarray, at: tuple[int, int], keep_grain: bool
) -> np.ndarray:
    """A real defect on another good picture: patches `defect`, `clean`, `mask` (h, w), put with their corner at `at` = (x, y).

    keep_grain: only the brightness ratio is carried over (stains, uneven grinding), else the defect's own pixels.
    """
    x, y = at
    h, w = mask.shape
    there = good[y : y + h, x : x + w]
    soft = cv2.GaussianBlur(cv2.erode(mask, np.ones((2, 2), np.uint8)).astype(np.float32), (0, 0), 0.7) * mask
    if keep_grain:
        ratio = cv2.GaussianBlur(defect + 8, (0, 0), 1.5) / cv2.GaussianBlur(clean + 8, (0, 0), 1.5)
        put = (there + 8) * np.where(mask > 0, ratio, 1.0) - 8
        soft = mask.astype(np.float32)
    else:
        ring = (cv2.dilate(mask, np.ones((9, 9), np.uint8)) & (1 - mask)) > 0
        gain = (float(there[ring].mean()) + 8) / (float(defect[ring].mean()) + 8) if ring.any() else 1.0
        put = (defect + 8) * np.clip(gain, 0.3, 3.0) - 8
    out: np.ndarray = good.copy()
    out[y : y + h, x : x + w] = np.clip(there * (1 - soft) + put * soft, 0, 255)
    return out
