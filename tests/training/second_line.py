"""A product line that no shipped model has seen: hammered sheet with scratches and dents, drawn by a procedure of its own.

    python tests/training/second_line.py DIR [--pictures N] [--seed S]

Leaves DIR/images/<class>/PART_k.png, DIR/masks/<class>/PART_k.png and DIR/good/NAME.png. Each defect is on a part of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 240, 320


def relief(rng: np.random.Generator) -> np.ndarray:
    """The height of a hammered surface, (HEIGHT, WIDTH) float32."""
    blows = cv2.GaussianBlur(rng.standard_normal((HEIGHT, WIDTH)), (0, 0), 7.0)
    ridges = np.abs(blows / blows.std())
    return np.asarray(cv2.GaussianBlur(ridges, (0, 0), 1.5), np.float32)


def lit(height: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The surface under light from the upper left, grey float32."""
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8) + cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    shade = np.linspace(-12, 12, WIDTH)[None, :] * rng.uniform(-1, 1)
    return np.asarray(rng.uniform(115, 160) - 190 * slope + shade + 2.5 * rng.standard_normal(height.shape), np.float32)


def scratch(height: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A shallow arc: (height after it, change of the brightness, mask 0/1)."""
    mask, line = np.zeros(height.shape, np.uint8), np.zeros(height.shape, np.uint8)
    turn, bend, length = rng.uniform(0, math.pi), rng.uniform(-0.012, 0.012), rng.uniform(50, 130)
    x, y = rng.uniform(70, WIDTH - 70), rng.uniform(60, HEIGHT - 60)
    along = np.linspace(-length / 2, length / 2, 60)
    angle = turn + bend * along
    step = length / 59
    points = np.stack([x + np.cumsum(np.cos(angle)) * step, y + np.cumsum(np.sin(angle)) * step], -1)
    points -= points.mean(0) - np.array([x, y])
    at = [np.round(points * 16).astype(np.int32)]
    cv2.polylines(line, at, False, 255, 2, cv2.LINE_AA, 4)
    cv2.polylines(mask, at, False, 1, 7, cv2.LINE_8, 4)
    shine = cv2.GaussianBlur(line.astype(np.float32) / 255, (0, 0), 0.7)
    shadow = np.roll(shine, (2, 2), (0, 1))
    return height, (rng.uniform(45, 80) * shine - rng.uniform(25, 45) * shadow) * (mask > 0), mask


def dent(height: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A round hollow: the hammer marks in it are flattened, one wall is bright and the other dark."""
    radius, x, y = rng.uniform(9, 19), rng.uniform(40, WIDTH - 40), rng.uniform(40, HEIGHT - 40)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    away = np.hypot((xs - x) * rng.uniform(0.8, 1.2), ys - y) / radius
    bowl = np.clip(1 - away**2, 0, 1)
    mask = (away < 1).astype(np.uint8)
    flat = height * (1 - 0.8 * np.clip(3 * bowl, 0, 1))
    return np.asarray(flat - rng.uniform(1.6, 2.6) * radius / 12 * bowl, np.float32), np.zeros_like(height), mask


DEFECTS = {"dent": dent, "scratch": scratch}


def good(rng: np.random.Generator) -> np.ndarray:
    """A picture without defects, uint8."""
    return np.clip(lit(relief(rng), rng), 0, 255).astype(np.uint8)


def defective(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a defect of this class and its mask, 0 or 255, both uint8."""
    height, change, mask = DEFECTS[name](relief(rng), rng)
    return np.clip(lit(height, rng) + change, 0, 255).astype(np.uint8), mask * 255


def write(folder: Path, pictures: int, free: int, seed: int = 0) -> None:
    """`pictures` of each class with their masks, and `free` good ones."""
    rng = np.random.default_rng(seed)
    for name in DEFECTS:
        for what in ("images", "masks"):
            (folder / what / name).mkdir(parents=True, exist_ok=True)
        for n in range(pictures):
            image, mask = defective(name, rng)
            cv2.imwrite(str(folder / "images" / name / f"p{seed}{name[0]}{n:02d}_0.png"), image)
            cv2.imwrite(str(folder / "masks" / name / f"p{seed}{name[0]}{n:02d}_0.png"), mask)
    (folder / "good").mkdir(exist_ok=True)
    for n in range(free):
        cv2.imwrite(str(folder / "good" / f"g{seed}{n:03d}.png"), good(rng))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=12, help="of each class (default 12)")
    parser.add_argument("--free", type=int, default=60, help="good pictures (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.folder, args.pictures, args.free, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
