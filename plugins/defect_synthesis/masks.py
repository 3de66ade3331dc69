"""Shapes of defects: small parametric forms whose sizes and directions are fitted to the masks of real defects.

blob  a closed curve anywhere on the part (pores, stains)      walk  a random walk, often from an edge (cracks)
bite  a blob centred on an edge of the part (breaks, fraying)  area  a large, nearly rectangular patch (uneven grinding)

Lengths are pixels of the pictures that the form was fitted on; `unit` scales them to the picture at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Form = Literal["blob", "walk", "bite", "area"]
SLACK = 1.5
"""Pixels that a walk is drawn wider than it is: a line needs room beside it, and what stays empty is not published."""


@dataclass(frozen=True)
class Shape:
    """How the masks of one class look. Three numbers are the 10, 50 and 90 % quantiles over the real masks."""

    form: Form
    edge: float
    """Share of the masks that touch an edge of the part."""
    area: tuple[float, float, float]
    aspect: tuple[float, float, float]
    """Length over width of the smallest rectangle around the mask; of a walk, which winds, length over thickness."""
    ragged: float
    """1 - area over the area of the convex hull, 75 % quantile."""
    field: float
    """Square root of the area of the pictures that it was fitted on, median."""
    axis: float = 0.0
    """Direction of the long side, degrees from the picture's x axis, 0 to 180, and ..."""
    aligned: float = 0.0
    """... how far the masks agree on it: 0 any direction, 1 all in this one."""


def part_of(image: np.ndarray) -> np.ndarray:
    """Where the part lies in a grey picture (H, W), any dtype: 1 on the part, 0 on a much darker background. uint8."""
    grey = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2.0)
    bright = float(np.percentile(grey, 60))
    part = (grey > 0.3 * bright).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(part)
    if count < 2:
        return np.ones(image.shape, np.uint8)
    part = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return np.ones(image.shape, np.uint8) if part.mean() < 0.05 else part


def draw(
    shape: Shape, allowed: np.ndarray, rng: np.random.Generator, unit: float, part: np.ndarray | None = None
) -> np.ndarray:
    """One mask (H, W), uint8 0/1, not empty, inside `allowed` (H, W), 0/1. The edges are those of `part`, default `allowed`."""
    part = allowed if part is None else part
    area = min(_between(shape.area, rng) * unit**2, 0.6 * float(allowed.sum()))
    aspect = max(_between(shape.aspect, rng), 1.0)
    length, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
    for _ in range(8):
        edge = rng.random() < shape.edge
        turn = math.radians(shape.axis) + rng.normal(0, 0.16) if rng.random() < shape.aligned else rng.uniform(0, math.pi)
        along = turn if rng.random() < 0.9 else None
        if shape.form == "walk":
            x, y, inward = _place(allowed, part, edge, along, 0.5 * width, rng)
            mask = _walk(allowed.shape, (x, y), inward if edge else turn, length, width + SLACK * unit, edge, rng, unit)
        elif shape.form == "bite" and edge:
            x, y, inward = _place(allowed, part, edge, None if along is None else along + math.pi / 2, 0.0, rng)
            mask = _lobe(allowed.shape, (x, y), inward + math.pi / 2, length, 1.7 * width, shape.ragged, 2.0, rng)
        elif shape.form == "area":
            x, y, _ = _place(allowed, part, edge, None, 1.0, rng)
            square = round(2 * turn / math.pi) * math.pi / 2 + rng.normal(0, 0.06)
            mask = _lobe(allowed.shape, (x, y), square, 1.1 * length, 1.1 * width, shape.ragged, 4.0, rng)
        else:
            x, y, _ = _place(allowed, part, edge, None, 0.5 * min(length, width * 2), rng)
            mask = _lobe(allowed.shape, (x, y), turn, 1.13 * length, 1.13 * width, shape.ragged, 2.0, rng)
        mask &= allowed
        if mask.sum() >= max(9.0, 0.25 * min(area, 400.0)):
            return mask
    if not mask.any():
        y_, x_ = (int(v[len(v) // 2]) for v in np.nonzero(allowed))
        mask[y_, x_] = 1
    return mask


def fit(masks: Sequence[np.ndarray], parts: Sequence[np.ndarray], prior: Shape | None = None) -> Shape:
    """The shape of one class from its real masks (H, W), 0/1, and where the part lies in each picture, 0/1.

    A few masks say little of the spread: the quantiles are kept apart, the more so the fewer masks there are, and one
    guess at evens goes into the shares. prior: what is known of such defects
    beforehand; its form is taken, and its numbers count as one more mask.
    """
    rows = []
    for mask, part in zip(masks, parts):
        rim = 1 - cv2.erode(part, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        for i in range(1, count):
            one = (labels == i).astype(np.uint8)
            area = float(one.sum())
            if area < 12 or area < 0.1 * mask.sum():
                continue
            outline = max(cv2.findContours(one, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
            (_, _), (a, b), turn = cv2.minAreaRect(outline)
            turn = math.radians(turn if a >= b else turn + 90)
            hull = max(cv2.contourArea(cv2.convexHull(outline)), area)
            aspect = (max(a, b) + 1) / (min(a, b) + 1)
            touches, thick = bool((one & rim).any()), 2 * area / len(outline)
            share, lean = area / mask.size, (math.cos(2 * turn), math.sin(2 * turn))
            rows.append((area, aspect, area / thick**2, 1 - area / hull, touches, share, *lean))
    if not rows:
        raise ValueError("no mask holds a defect of 12 pixels or more")
    area_, aspect_, wound_, ragged_, edge_, share_, cos, sin = (np.array(column, np.float64) for column in zip(*rows))
    usual, n = float(np.median(aspect_)), len(masks)
    edge = (float(edge_.mean()) * n + (prior.edge if prior else 0.5)) / (n + 1)
    form: Form = "area" if np.median(share_) > 0.05 else "walk" if usual > 5 else "bite" if edge > 0.5 else "blob"
    form = prior.form if prior else form
    agreed = complex((cos * (aspect_ - 1)).sum(), (sin * (aspect_ - 1)).sum()) / max(float((aspect_ - 1).sum()), 0.1)
    certain = n / (n + 1) * min(1.0, usual - 1)
    return Shape(
        form,
        round(edge, 3),
        _quantiles(area_, n, 2.2, prior.area if prior else None),
        _quantiles(wound_ if form == "walk" else aspect_, n, 1.5, prior.aspect if prior else None),
        round(float(np.quantile(ragged_, 0.75)), 3),
        round(float(np.median([math.sqrt(m.size) for m in masks])), 1),
        round(math.degrees(np.angle(agreed) / 2) % 180, 1),
        round(abs(agreed) * certain, 3),
    )


def _quantiles(
    values: np.ndarray, count: int, wide: float, prior: tuple[float, float, float] | None
) -> tuple[float, float, float]:
    """10, 50 and 90 % of `values` of `count` pictures; of few, at least `wide` (as a factor) apart, the prior's as one more."""
    at = (0.1, 0.5, 0.9)
    logs = np.quantile(np.log(np.maximum(values, 1.0)), at)
    reach = math.log(wide) / math.sqrt(count)
    logs[0], logs[2] = min(logs[0], logs[1] - reach), max(logs[2], logs[1] + reach)
    if prior:
        draws = np.linspace(0.1, 0.9, 101)
        logs = np.quantile(np.r_[np.tile(np.interp(draws, at, logs), count), np.interp(draws, at, np.log(prior))], at)
    low, middle, high = (round(math.exp(v), 2) for v in logs)
    return low, middle, high


def _between(quantiles: tuple[float, float, float], rng: np.random.Generator) -> float:
    """A draw whose logarithm is linear between the quantiles, so within 10 to 90 % of what was seen."""
    return math.exp(float(np.interp(rng.uniform(0.1, 0.9), (0.1, 0.5, 0.9), [math.log(max(q, 1e-3)) for q in quantiles])))


def _place(
    allowed: np.ndarray, part: np.ndarray, edge: bool, along: float | None, clearance: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """A centre (x, y) in pixels and the direction into the part there, radians; at an edge near `along` where there is one."""
    if edge:
        inside = _depth(part)
        near = np.argwhere((inside > 0) & (inside < 2.5) & (allowed > 0))
        if len(near):
            beyond = cv2.BORDER_REPLICATE  # a mirrored border would have no slope
            soft = cv2.GaussianBlur(np.minimum(inside, 12), (0, 0), 2, borderType=beyond)
            slopes = (cv2.Sobel(soft, cv2.CV_32F, *d, ksize=3, borderType=beyond) for d in ((1, 0), (0, 1)))
            gx, gy = (slope[near[:, 0], near[:, 1]] for slope in slopes)
            inward = np.arctan2(gy, gx)
            if along is not None:
                fits = np.abs(np.cos(inward - along)) > 0.82
                near, inward = (near[fits], inward[fits]) if fits.any() else (near, inward)
            i = int(rng.integers(len(near)))
            return float(near[i, 1]), float(near[i, 0]), float(inward[i])
    inner = _depth(allowed)
    free = np.argwhere(inner > min(clearance, 0.8 * float(inner.max())))
    y, x = free[rng.integers(len(free))] if len(free) else np.argwhere(allowed)[0]
    return float(x), float(y), float(rng.uniform(-math.pi, math.pi))


def _depth(part: np.ndarray) -> np.ndarray:
    """Distance in pixels to the outline of the part, the picture's border one, (H, W) float32."""
    wide = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.distanceTransform(wide, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)


def _lobe(
    size: tuple[int, ...], at: tuple[float, float], turn: float, length: float, width: float, ragged: float, power: float,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """A closed curve around `at`: a superellipse (power 2 = ellipse) whose radius wavers with `ragged`."""
    angle = np.linspace(0, 2 * math.pi, 180, endpoint=False)
    radius = (np.abs(np.cos(angle)) ** power + np.abs(np.sin(angle)) ** power) ** (-1 / power)
    top = 4 + int(60 * min(ragged, 0.4))
    order = np.arange(2, top)
    strength = (0.1 + 0.6 * ragged) * rng.standard_normal(len(order)) / order ** (1.3 - min(ragged, 0.4))
    wave = (strength[:, None] * np.cos(order[:, None] * angle + rng.uniform(0, 2 * math.pi, len(order))[:, None])).sum(0)
    radius = radius * np.exp(np.clip(wave, -0.9, 0.9))
    x, y = 0.5 * length * radius * np.cos(angle), 0.5 * width * radius * np.sin(angle)
    points = np.stack([at[0] + x * math.cos(turn) - y * math.sin(turn), at[1] + x * math.sin(turn) + y * math.cos(turn)], -1)
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask


def _walk(
    size: tuple[int, ...], at: tuple[float, float], heading: float, length: float, width: float, edge: bool,
    rng: np.random.Generator, unit: float,
) -> np.ndarray:  # fmt: skip
    """A path that keeps its rough direction and wavers, `width` pixels wide; from the edge inwards, or both ways from `at`.

    It thins towards its end; one in six has a branch.
    """
    step = 4.0 * max(unit, 0.5)
    mask = np.zeros(size, np.uint8)
    heading += rng.normal(0, 0.2)
    waver = rng.uniform(0.06, 0.2)
    ways = [(*at, heading + way, length * (1.0 if edge else 0.5)) for way in ((0.0,) if edge else (0.0, math.pi))]
    if rng.random() < 1 / 6:
        far = rng.uniform(0.2, 0.6) * ways[0][3]
        fork = (at[0] + far * math.cos(heading), at[1] + far * math.sin(heading))
        ways.append((*fork, heading + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9), rng.uniform(0.2, 0.5) * length))
    for x, y, direction, reach in ways:
        lean, count = 0.0, max(2, int(reach / step))
        for i in range(count):
            lean = 0.85 * lean + rng.normal(0, waver)
            nx, ny = x + step * math.cos(direction + lean), y + step * math.sin(direction + lean)
            thick = max(1, round(width * rng.uniform(0.8, 1.2) * (1.15 - 0.4 * i / count)))
            cv2.line(mask, (round(x), round(y)), (round(nx), round(ny)), 1, thick)
            x, y = nx, ny
    return mask
