"""The pictures of the simulated line: procedural metal parts under a camera, the same bytes for the same (seed, n).

`seed` is the product (how it is made, its outline, its bores), `n` the workpiece: every one has its own texture, pose,
light and dust. Made of filtered noise, no picture of anybody's is in it. Grey levels are built as floats in 0..1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

FINISHES = ("ground", "turned", "pressed", "cast")


def frame(seed: int, n: int, width: int = 640, height: int = 480) -> np.ndarray:
    """The camera's picture of workpiece `n` of product `seed`: (height, width), uint8."""
    product = np.random.default_rng([seed, 7])
    return part(product, np.random.default_rng([seed, 11, n]), FINISHES[seed % len(FINISHES)], width, height)


def part(product: np.random.Generator, piece: np.random.Generator, finish: str, width: int, height: int) -> np.ndarray:
    """One workpiece on the dark fixture, uint8. `product` draws what all its workpieces share, `piece` what they do not."""
    unit = math.sqrt(width * height) / 554
    pose = (piece.normal(0, 2.5 * unit), piece.normal(0, 2.5 * unit), math.radians(piece.normal(0, 0.5)))
    outline, bores = _shape(product, width, height, unit, pose)
    grain = texture(piece, finish, height, width, math.degrees(pose[2]), product.uniform(0.75, 1.3))
    level = product.uniform(0.38, 0.56)
    light = _light(product, piece, width, height)

    inside = cv2.distanceTransform(outline, cv2.DIST_L2, 5)
    chamfer = np.exp(-((inside - 3.5 * unit) ** 2) / (2 * (1.3 * unit) ** 2))
    facing = _facing(inside, product.uniform(0, 2 * math.pi))
    metal = (level * (1 + 0.5 * grain) + 0.24 * level * chamfer * facing) * light
    fixture = 0.06 + 0.014 * _smooth(piece, height, width, 40 * unit)
    cover = cv2.GaussianBlur(outline.astype(np.float32), (0, 0), 0.9)
    picture = fixture * (1 - cover) + metal * cover
    for x, y, r in bores:
        picture = _bore(picture, x, y, r, unit)
    picture = _dust(picture, piece, outline, unit)

    picture = cv2.GaussianBlur(picture, (0, 0), 0.6)
    shot = piece.standard_normal(picture.shape, dtype=np.float32)
    picture = picture + shot * np.sqrt(np.maximum(picture, 0) * 2.2e-4 + 1.5e-5)
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def texture(
    rng: np.random.Generator, finish: str, height: int, width: int, angle: float = 0.0, coarse: float = 1.0
) -> np.ndarray:
    """The relief that this finish leaves, (height, width), float32, mean about 0 and deviation about 0.25.

    angle: direction of the marks in degrees, 0 = upright. coarse: how far apart the marks lie, 1 = as usual.
    """
    if finish == "ground":
        streaks = sum(
            weight * _streaks(rng, height, width, length, across * coarse, angle)
            for weight, length, across in ((0.55, 160, 0.8), (0.5, 60, 1.6), (0.45, 24, 0.6), (0.35, 300, 6.0))
        )
        relief = streaks + 0.25 * _smooth(rng, height, width, 25) + 0.22 * _smooth(rng, height, width, 0.7)
    elif finish == "turned":
        far = rng.uniform(0.2, 1.2) * max(height, width)
        turn = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        radius = np.hypot(x - width / 2 - far * math.cos(turn), y - height / 2 - far * math.sin(turn))
        pitch = 5.0 * coarse
        rings = np.interp(radius, np.arange(0, 4 * max(height, width)), _line_noise(rng, 4 * max(height, width), 1.0)).astype(
            np.float32
        )
        tool = np.sin(2 * math.pi * radius / pitch + 1.5 * _smooth(rng, height, width, 60)) * (
            0.7 + 0.3 * _smooth(rng, height, width, 30)
        )
        relief = 0.5 * tool + 0.65 * rings + 0.3 * _smooth(rng, height, width, 0.8) + 0.2 * _smooth(rng, height, width, 12)
    elif finish == "pressed":
        rolling = _streaks(rng, height, width, 40, 1.2 * coarse, angle + 90)
        relief = (
            0.35 * rolling
            + 0.4 * _smooth(rng, height, width, 1.1)
            + 0.35 * _smooth(rng, height, width, 5)
            + 0.4 * _smooth(rng, height, width, 50)
        )
        relief *= 0.55
    elif finish == "cast":
        grains = [_smooth(rng, height, width, s * coarse) for s in (0.8, 1.8, 4.0, 14.0)]
        relief = 0.45 * grains[0] + 0.6 * grains[1] + 0.4 * grains[2] + 0.25 * grains[3]
        relief = np.where(relief < 0, 1.25 * relief, 0.8 * relief)
    else:
        raise ValueError(f"finish '{finish}'; known: {', '.join(FINISHES)}")
    return (0.25 * relief).astype(np.float32)


def _smooth(rng: np.random.Generator, height: int, width: int, sigma: float) -> np.ndarray:
    """Gaussian noise blurred to `sigma` pixels, unit deviation; long ones are made small and scaled up."""
    shrink = max(1, int(sigma / 3))
    h, w = -(-height // shrink) + 2, -(-width // shrink) + 2
    noise = cv2.GaussianBlur(rng.standard_normal((h, w), dtype=np.float32), (0, 0), max(sigma / shrink, 0.3))
    noise = np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)
    if shrink > 1:
        noise = cv2.resize(noise, (w * shrink, h * shrink), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise[:height, :width], np.float32)


def _streaks(rng: np.random.Generator, height: int, width: int, length: float, across: float, angle: float) -> np.ndarray:
    """Noise drawn out to `length` pixels along `angle` (0 = upright) and `across` pixels wide, unit deviation."""
    side = int(math.hypot(height, width)) + 8
    shrink = max(1, int(length / 6))
    noise: np.ndarray = rng.standard_normal((side // shrink + 8, side), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=max(across, 0.3), sigmaY=max(length / shrink, 0.3))
    noise = cv2.resize(noise, (side, noise.shape[0] * shrink), interpolation=cv2.INTER_CUBIC)
    noise = np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)
    turn = cv2.getRotationMatrix2D((noise.shape[1] / 2, noise.shape[0] / 2), -angle, 1.0)
    turn[:, 2] += np.array([width / 2 - noise.shape[1] / 2, height / 2 - noise.shape[0] / 2])
    turned = cv2.warpAffine(noise, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.float32)


def _line_noise(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.standard_normal((1, size), dtype=np.float32), (0, 0), sigma)[0]
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def _shape(
    product: np.random.Generator, width: int, height: int, unit: float, pose: tuple[float, float, float]
) -> tuple[np.ndarray, list[tuple[float, float, float]]]:
    """The outline as a 0/1 picture (a plate with rounded corners, some with a notch), and its bores (x, y, radius)."""
    w, h = product.uniform(0.72, 0.88) * width, product.uniform(0.66, 0.84) * height
    corner = product.uniform(8, 46) * unit
    notch = product.uniform(0.1, 0.2) * w if product.random() < 0.5 else 0.0
    side = 1 if product.random() < 0.5 else -1
    points = []
    for sx, sy, start in ((1, 1, 0), (-1, 1, 90), (-1, -1, 180), (1, -1, 270)):
        for a in np.radians(np.linspace(start, start + 90, 12)):
            points.append((sx * (w / 2 - corner) + corner * math.cos(a), sy * (h / 2 - corner) + corner * math.sin(a)))
    bores: list[tuple[float, float, float]] = []
    for _ in range(int(product.integers(0, 4))):
        r = product.uniform(11, 24) * unit
        at = (product.uniform(-0.36, 0.36) * w, (0.5 * h - 2.2 * r - 8 * unit) * product.choice([-1.0, 1.0]))
        if all(math.dist(at, other[:2]) > 2 * (r + other[2]) for other in bores):
            bores.append((*at, r))
    dx, dy, turn = pose
    cos, sin = math.cos(turn), math.sin(turn)

    def place(x: float, y: float) -> tuple[float, float]:
        return width / 2 + dx + x * cos - y * sin, height / 2 + dy + x * sin + y * cos

    outline = np.zeros((height, width), np.uint8)
    cv2.fillPoly(outline, [np.round(16 * np.array([place(*p) for p in points])).astype(np.int32)], 1, cv2.LINE_8, 4)
    if notch:
        x, y = place(0.0, side * h / 2)
        cv2.circle(outline, (round(x), round(y)), round(notch / 2), 0, -1)
    return outline, [(*place(x, y), r) for x, y, r in bores if not (notch and abs(x) < notch / 2 + 2 * r and y * side > 0)]


def _light(product: np.random.Generator, piece: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A tilted falloff with one broad highlight, mean about 1; the lamp flickers a little from piece to piece."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    turn, tilt = product.uniform(0, 2 * math.pi), product.uniform(0.1, 0.5)
    cx, cy = product.uniform(-0.3, 0.3) + piece.normal(0, 0.02), product.uniform(-0.3, 0.3) + piece.normal(0, 0.02)
    spot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * product.uniform(0.18, 0.4) ** 2))
    light = 0.85 + tilt * (x * math.cos(turn) + y * math.sin(turn)) + product.uniform(0.15, 0.45) * spot
    return np.asarray(light * piece.normal(1, 0.03), np.float32)


def _facing(inside: np.ndarray, sun: float) -> np.ndarray:
    """How much the edge faces the lamp, -1..1: the slope of the distance to the rim, turned to the light."""
    soft = cv2.GaussianBlur(inside, (0, 0), 2)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(soft, cv2.CV_32F, 0, 1, ksize=3)
    facing: np.ndarray = (gx * math.cos(sun) + gy * math.sin(sun)) / (np.hypot(gx, gy) + 1e-3)
    return facing


def _bore(picture: np.ndarray, x: float, y: float, r: float, unit: float) -> np.ndarray:
    """A drilled hole: dark inside with a faint wall, a bright countersink on the side away from the lamp."""
    reach = int(r + 9 * unit)
    x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
    there = picture[y0 : int(y) + reach, x0 : int(x) + reach]
    yy, xx = np.mgrid[y0 : y0 + there.shape[0], x0 : x0 + there.shape[1]].astype(np.float32)
    d = np.hypot(xx - x, yy - y)
    wall = 0.05 + 0.05 * np.clip((yy - y) / r, -1, 1)
    sink = np.exp(-((d - r - 2.0 * unit) ** 2) / (2 * (1.2 * unit) ** 2)) * (0.16 - 0.12 * (yy - y) / (d + 1))
    cover = np.clip((r - d) / 1.2 + 0.5, 0, 1)
    there[:] = (there + sink) * (1 - cover) + wall * cover
    return picture


def _dust(picture: np.ndarray, piece: np.random.Generator, outline: np.ndarray, unit: float) -> np.ndarray:
    """A few specks and hairline scratches such as a good part may have."""
    layer = np.zeros_like(picture)
    height, width = picture.shape
    for _ in range(int(piece.integers(2, 9))):
        at = (int(piece.integers(width)), int(piece.integers(height)))
        cv2.circle(layer, at, int(piece.integers(0, 2)), float(piece.choice([-0.08, 0.1])), -1, cv2.LINE_AA)
    for _ in range(int(piece.integers(0, 3))):
        a = piece.uniform(0, math.pi)
        x, y, half = piece.uniform(0, width), piece.uniform(0, height), piece.uniform(10, 45) * unit
        ends = [(round(x + s * half * math.cos(a)), round(y + s * half * math.sin(a))) for s in (-1, 1)]
        cv2.line(layer, ends[0], ends[1], float(piece.uniform(0.02, 0.05)), 1, cv2.LINE_AA)
    return np.asarray(picture + cv2.GaussianBlur(layer, (0, 0), 0.6) * outline, np.float32)
