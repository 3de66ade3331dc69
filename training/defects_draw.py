"""Procedural defects on procedural parts: pores with a rim, cracks, broken and frayed edges, uneven patches.

They teach the network surfaces and classes of which no real picture is at hand; their strength is the draw's, so that
every severity occurs.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..plugins.defect_synthesis.masks import Shape

SHAPES = {
    "blowhole": Shape("blob", 0.02, (55, 120, 420), (1.05, 1.4, 2.6), 0.03, 350),
    "break": Shape("bite", 0.9, (150, 700, 3200), (1.4, 2.3, 5.0), 0.08, 350),
    "crack": Shape("walk", 0.7, (180, 380, 800), (6.0, 12.0, 20.0), 0.15, 350),
    "fray": Shape("bite", 0.6, (400, 1200, 9000), (1.2, 1.6, 3.0), 0.22, 350),
    "uneven": Shape("area", 0.8, (5000, 16000, 32000), (1.2, 1.9, 4.5), 0.02, 350),
}
"""What the classes look like where no real mask tells; sizes in pixels of pictures of 350 x 350."""


def noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Blurred Gaussian noise of unit deviation."""
    out = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), max(sigma, 0.4))
    return np.asarray(out / (out.std() + 1e-6), np.float32)


def depth_of(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline in pixels, the picture's own border not counted as outline."""
    wide = cv2.copyMakeBorder(mask, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.distanceTransform(wide, cv2.DIST_L2, 5)[8:-8, 8:-8], np.float32)


def blowhole(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pore: dark, rough, its wall lit on the side that faces the lamp, with a thin bright lip now and then."""
    depth = depth_of(mask)
    reach = max(float(depth.max()), 1.0)
    core = np.clip((depth - rng.uniform(0.3, 1.6)) / rng.uniform(0.8, 2.2), 0, 1)
    sun = rng.uniform(0, 2 * math.pi)
    gx, gy = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3) / 8, cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3) / 8
    facing = gx * math.cos(sun) + gy * math.sin(sun)
    wall = np.exp(-(((depth - 0.35 * reach) / (0.3 * reach + 0.5)) ** 2))
    floor = 1 - rng.uniform(0.3, 0.85) * core * (1 + 0.16 * noise(rng, mask.shape, rng.uniform(0.7, 2.0)))
    lip = np.exp(-((depth - 1.0) ** 2) / 1.2) * rng.uniform(0, 0.25) * (facing < -0.2)
    return np.asarray(good * (floor + rng.uniform(0.05, 0.3) * facing * wall * core) * (1 + lip), np.float32)


def crack(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A dark line along the middle of the mask, wavering in width and darkness, one side lit a little."""
    depth = depth_of(mask)
    reach = cv2.dilate(depth, np.ones((9, 9), np.uint8))
    middle = (reach - depth + 0.8 * noise(rng, mask.shape, 2.5)) * (mask > 0)
    width = rng.uniform(0.5, 1.3) * np.exp(0.35 * noise(rng, mask.shape, 8.0))
    line = np.exp(-((np.maximum(middle, 0) / width) ** 2)) * (mask > 0)
    dark = rng.uniform(0.25, 0.8) * np.clip(1 + 0.3 * noise(rng, mask.shape, 6.0), 0.3, 1.2)
    side = np.roll(line, (int(rng.choice([-2, 2])), int(rng.choice([-2, 2]))), (0, 1)) * (1 - line) * (mask > 0)
    return np.asarray(good * (1 - dark * line + rng.uniform(0, 0.15) * side), np.float32)


def chip(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Material broken off: facets of other brightness with a sharp border, near the edge sometimes nothing but background."""
    level = float(good[mask > 0].mean())
    depth = depth_of(mask)
    reach = max(float(depth.max()), 1.0)
    turn, y, x = rng.uniform(0, 2 * math.pi), *np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32)
    slope = (x * math.cos(turn) + y * math.sin(turn) + rng.uniform(2, 6) * noise(rng, mask.shape, 9)) / rng.uniform(8, 26)
    shells = (
        np.sin(slope) * rng.uniform(0.02, 0.14)
        + 0.07 * noise(rng, mask.shape, rng.uniform(0.8, 2.5))
        + 0.06 * noise(rng, mask.shape, 6)
    )
    tone = rng.choice([rng.uniform(0.35, 0.8), rng.uniform(1.15, 1.5)], p=[0.8, 0.2])
    facet = level * (tone + shells)
    border = np.exp(-((depth - 1.2) ** 2) / 1.5)
    facet = facet + level * border * rng.uniform(-0.25, 0.2)
    if rng.random() < 0.4:
        inside = cv2.distanceTransform(part, cv2.DIST_L2, 5)
        gone = np.clip((rng.uniform(0.2, 0.6) * reach - inside + 1.2 * noise(rng, mask.shape, 3)) / 1.5, 0, 1)
        facet = facet * (1 - gone) + gone * float(rng.uniform(8, 22))
    cover = np.clip(depth / 1.3, 0, 1)
    return np.asarray(good * (1 - cover) + facet * cover, np.float32)


def fray(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Torn, stained surface: a ragged dark patch with grain of its own and crumbs around it."""
    depth = depth_of(mask)
    reach = max(float(depth.max()), 1.0)
    field = depth / reach + 0.25 * noise(rng, mask.shape, rng.uniform(2, 5)) + 0.12 * noise(rng, mask.shape, 1.0)
    torn = np.clip((field - rng.uniform(0.1, 0.4)) * rng.uniform(3, 9), 0, 1) * (mask > 0)
    strength = rng.uniform(0.2, 0.62)
    stain = rng.uniform(0.0, 0.5) * strength * (mask > 0) * np.clip(depth / 2, 0, 1)
    grain = 1 + 0.12 * noise(rng, mask.shape, 1.1)
    return np.asarray(good * (1 - np.maximum(strength * torn * grain, stain)), np.float32)


def uneven(good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch ground otherwise: darker or lighter, its own grain stronger or weaker, the border a step or a ramp."""
    depth = depth_of(mask)
    ramp = np.clip(depth / rng.choice([1.0, rng.uniform(3, 14)]), 0, 1)
    tone = float(rng.choice([-1, 1])) * rng.uniform(0.06, 0.34)
    waver = 1 + 0.3 * noise(rng, mask.shape, 24)
    calm = cv2.GaussianBlur(good, (0, 0), 4)
    grain = 1 + rng.uniform(-0.4, 0.5) * ramp
    return np.asarray((calm + (good - calm) * grain) * (1 + tone * ramp * np.clip(waver, 0.3, 1.7)), np.float32)


PAINTERS = {"blowhole": blowhole, "break": chip, "crack": crack, "fray": fray, "uneven": uneven}
"""(good, mask, part, rng) -> picture with the defect, float32 grey 0..255; only what the mask covers is used."""


def paint(defect: str, good: np.ndarray, mask: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`good` (H, W), float32, with a procedural defect under `mask`, 0/1; bit-equal outside."""
    painted = PAINTERS[defect](good, mask, part, rng)
    soft = cv2.GaussianBlur(painted.astype(np.float32), (0, 0), 0.6)
    return np.where(mask > 0, np.clip(soft, 0, 255), good).astype(np.float32)
