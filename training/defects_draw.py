"""Procedural defects: pores with a rim, cracks, chips at edges, frayed edges, patches ground otherwise.

They teach the network what defects are like before it has seen a real one, on any surface; their strength, grain and
border are drawn wide, so that a real defect lies inside of what occurs. Ranges are general knowledge of castings and ground
sinter parts, checked by eye against real pictures, not fitted to any.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..plugins.defect_synthesis.masks import Shape

SHAPES = {
    "blowhole": Shape("blob", 0.08, (40, 125, 420), (1.05, 1.5, 3.2), 0.06, 350),
    "break": Shape("bite", 0.8, (140, 800, 4500), (1.5, 3.2, 8.0), 0.1, 350),
    "crack": Shape("walk", 0.8, (110, 330, 800), (8.0, 20.0, 40.0), 0.15, 350),
    "fray": Shape("bite", 0.6, (400, 1200, 14000), (1.2, 1.6, 3.0), 0.22, 350),
    "uneven": Shape("area", 0.8, (5000, 16000, 36000), (1.2, 1.9, 5.0), 0.03, 350),
}
"""What the classes look like where no real mask tells; sizes in pixels of pictures of 350 x 350."""
MARGIN = 20


def noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Blurred Gaussian noise of unit deviation; slow one is made small and scaled up."""
    shrink = max(1, int(sigma / 3))
    small = (-(-shape[0] // shrink) + 2, -(-shape[1] // shrink) + 2)
    out = cv2.GaussianBlur(rng.standard_normal(small, dtype=np.float32), (0, 0), max(sigma / shrink, 0.4))
    out = np.asarray((out - out.mean()) / (out.std() + 1e-6), np.float32)
    if shrink > 1:
        out = cv2.resize(out, (small[1] * shrink, small[0] * shrink), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(out[: shape[0], : shape[1]])


def depth_of(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline in pixels, the picture's own border not counted as outline."""
    wide = cv2.copyMakeBorder(mask, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.distanceTransform(wide, cv2.DIST_L2, 5)[8:-8, 8:-8], np.float32)


def _facing(depth: np.ndarray, sun: float) -> np.ndarray:
    """How much the wall below the outline faces the lamp, about -1..1."""
    soft = cv2.GaussianBlur(depth, (0, 0), 1.0)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3) / 8, cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3) / 8
    return np.asarray(gx * math.cos(sun) + gy * math.sin(sun), np.float32)


def _without_grain(good: np.ndarray, keep: float, sigma: float = 5.0) -> np.ndarray:
    """The picture with only a share of its fine grain."""
    calm = cv2.GaussianBlur(good, (0, 0), sigma)
    return np.asarray(calm + keep * (good - calm), np.float32)


def blowhole(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pore: dark or just matt, rough, its wall lit on the side that faces the lamp, often a darker rim or core."""
    depth = depth_of(mask) + 0.5 * noise(rng, mask.shape, 1.5) * (mask > 0)
    reach = max(float(depth.max()), 1.0)
    core = np.clip((depth - rng.uniform(0.2, 1.2)) / rng.uniform(0.8, 2.2), 0, 1)
    facing = _facing(depth, rng.uniform(0, 2 * math.pi))
    wall = np.exp(-(((depth - rng.uniform(0.2, 0.5) * reach) / (0.3 * reach + 0.5)) ** 2))
    dark = rng.uniform(0.12, 0.75) * core * (1 + 0.16 * noise(rng, mask.shape, rng.uniform(0.7, 2.0)))
    if rng.random() < 0.5:  # a hole in the hole, off its middle
        y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32)
        ys, xs = np.nonzero(mask)
        at = int(rng.integers(len(ys)))
        far = np.hypot(x - 0.5 * (xs[at] + xs.mean()), y - 0.5 * (ys[at] + ys.mean()))
        dark = np.maximum(dark, rng.uniform(0.4, 0.9) * core * np.exp(-((far / (rng.uniform(0.25, 0.7) * reach + 0.7)) ** 2)))
    if rng.random() < 0.4:
        dark = np.maximum(dark, rng.uniform(0.25, 0.7) * np.exp(-((depth - rng.uniform(0.8, 1.8)) ** 2) / 0.8) * (mask > 0))
    lip = np.exp(-((depth - 1.0) ** 2) / 1.2) * rng.uniform(0, 0.3) * (facing < -0.2)
    ground = _without_grain(good, rng.uniform(0.0, 0.9)) * core + good * (1 - core)
    return np.asarray(ground * (1 - dark + rng.uniform(0.0, 0.35) * facing * wall * core) * (1 + lip), np.float32)


def crack(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A dark line along the middle of the mask, wavering in width and darkness, one side lit a little or stained."""
    depth = depth_of(mask)
    reach = cv2.dilate(depth, np.ones((9, 9), np.uint8))
    middle = (reach - depth + rng.uniform(0.3, 0.9) * noise(rng, mask.shape, 2.5)) * (mask > 0)
    usual = float(np.median(reach[mask > 0]))
    width = rng.uniform(0.25, 0.65) * max(usual, 1.4) * np.exp(rng.uniform(0.15, 0.45) * noise(rng, mask.shape, 9.0))
    line = np.exp(-((np.maximum(middle, 0) / width) ** rng.choice([2, 4]))) * (mask > 0)
    dark = rng.uniform(0.22, 0.85) * np.clip(1 + rng.uniform(0.05, 0.35) * noise(rng, mask.shape, 7.0), 0.25, 1.15)
    side = np.roll(line, (int(rng.choice([-2, 2])), int(rng.choice([-2, 2]))), (0, 1)) * (1 - line) * (mask > 0)
    stain = rng.uniform(0, 0.15) * np.clip(depth / 2, 0, 1)
    return np.asarray(good * (1 - dark * line) * (1 - stain) * (1 + rng.uniform(-0.1, 0.22) * side), np.float32)


def chip(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Material broken off: a face without the surface's grain, dark or bright steps, a dark line where it begins."""
    level = float(good[mask > 0].mean())
    depth = depth_of(mask)
    reach = max(float(depth.max()), 1.0)
    turn, y, x = rng.uniform(0, 2 * math.pi), *np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32)
    across = x * math.cos(turn) + y * math.sin(turn)
    across = (across - across[mask > 0].mean()) / (across[mask > 0].std() + 1)
    slope = (across * rng.uniform(0.5, 6) + rng.uniform(0.2, 1.2) * noise(rng, mask.shape, 9)) + rng.uniform(0, 6)
    shells = np.sin(slope) * rng.uniform(0.0, 0.2) + rng.uniform(0, 0.12) * noise(rng, mask.shape, rng.uniform(0.8, 3.0))
    tone = float(rng.choice([rng.uniform(0.4, 0.85), rng.uniform(0.85, 1.1), rng.uniform(1.1, 1.5)], p=[0.55, 0.3, 0.15]))
    face = _without_grain(good, rng.uniform(0.0, 0.8), 4.0) if rng.random() < 0.5 else np.full_like(good, level)
    face = face * (tone + shells + rng.uniform(-0.15, 0.15) * across)
    begin = depth + rng.uniform(0.2, 1.0) * noise(rng, mask.shape, 3.0)
    facing = _facing(depth, rng.uniform(0, 2 * math.pi))
    wide = rng.uniform(0.7, 2.2)
    line = np.exp(-(((begin - rng.uniform(1.0, 2.2) - wide) / wide) ** 2))
    partly = 1.0 if rng.random() < 0.5 else np.clip(0.5 + facing, 0, 1)
    dark = rng.uniform(0.25, 0.85) * (1 if abs(tone - 1) < 0.2 or rng.random() < 0.6 else 0.3)
    face = face * (1 - dark * line * partly) + level * rng.uniform(0, 0.3) * np.roll(line, 2, int(rng.integers(2))) * (1 - line)
    if rng.random() < 0.4:
        inside = cv2.distanceTransform(cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), cv2.DIST_L2, 5)
        wavy = rng.uniform(0.1, 0.7) * reach - inside[1:-1, 1:-1] + 1.2 * noise(rng, mask.shape, 3)
        gone = np.clip(wavy / 1.5, 0, 1)
        face = face * (1 - gone) + gone * float(rng.uniform(4, 24))
    cover = np.clip(depth / 1.3, 0, 1)
    return np.asarray(good * (1 - cover) + face * cover, np.float32)


def fray(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Torn, stained surface: a ragged dark patch with a border and grain of its own, crumbs around it."""
    depth = depth_of(mask)
    reach = max(float(depth.max()), 1.0)
    field = depth / reach + 0.25 * noise(rng, mask.shape, rng.uniform(2, 5)) + 0.12 * noise(rng, mask.shape, 1.0)
    if rng.random() < 0.4:  # the whole patch, with a clear outline
        field = depth / min(reach, 4.0)
    torn = np.clip((field - rng.uniform(0.1, 0.4)) * rng.uniform(3, 9), 0, 1) * (mask > 0)
    strength = rng.uniform(0.15, 0.75)
    stain = rng.uniform(0.0, 0.5) * strength * (mask > 0) * np.clip(depth / 2, 0, 1)
    grain = 1 + rng.uniform(0.03, 0.15) * noise(rng, mask.shape, 1.1) + rng.uniform(0, 0.15) * noise(rng, mask.shape, 12)
    ground = good + torn * (_without_grain(good, rng.uniform(0.1, 0.9)) - good)
    rim = rng.uniform(0, 0.35) * np.exp(-((depth - 2) ** 2) / 3) * (rng.random() < 0.5)
    return np.asarray(ground * (1 - np.maximum(strength * torn * grain, stain)) * (1 - rim * (mask > 0)), np.float32)


def uneven(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch ground otherwise: darker or lighter, its own grain stronger or weaker, the border a step or a ramp."""
    depth = depth_of(mask)
    ramp = np.clip(depth / rng.choice([1.0, rng.uniform(3, 14)]), 0, 1)
    tone = float(rng.choice([-1, 1])) * rng.uniform(0.06, 0.34)
    waver = 1 + 0.3 * noise(rng, mask.shape, 24)
    calm = cv2.GaussianBlur(good, (0, 0), 4)
    grain = 1 + rng.uniform(-0.4, 0.5) * ramp
    rim = rng.uniform(-0.2, 0.2) * np.exp(-((depth - 1.5) ** 2) / 2) * (rng.random() < 0.5)
    return np.asarray((calm + (good - calm) * grain) * (1 + tone * ramp * np.clip(waver, 0.3, 1.7)) * (1 + rim), np.float32)


PAINTERS = {"blowhole": blowhole, "break": chip, "crack": crack, "fray": fray, "uneven": uneven}
"""(good, mask, part, rng) -> picture with the defect, float32 grey 0..255; only what the mask covers is used."""


def paint(defect: str, good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`good` (H, W), float32, with a procedural defect under `mask`, 0/1; bit-equal outside."""
    x, y, w, h = cv2.boundingRect(mask)
    there = (slice(max(y - MARGIN, 0), y + h + MARGIN), slice(max(x - MARGIN, 0), x + w + MARGIN))
    painted = PAINTERS[defect](good[there], mask[there], part[there], rng)
    soft = cv2.GaussianBlur(painted.astype(np.float32), (0, 0), float(rng.uniform(0.4, 0.9)))
    out: np.ndarray = good.copy()
    out[there] = np.where(mask[there] > 0, np.clip(soft, 0, 255), good[there])
    return out
