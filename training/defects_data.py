"""The pool of training windows: real defects beside their pseudo-clean pictures, real defects bent and put onto other good
pictures, and procedural ones on good pictures and on procedural parts. Made once at the start from a seed; the training
only draws from it.

A folder of pictures holds `<class>/NAME.jpg` with `NAME_mask.png` (255 = defect) and `free/*.jpg` without defects.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ..demo import surface
from ..plugins.defect_synthesis import masks, region
from . import defects_clean, defects_draw

Progress = Callable[[str, int, int], None]
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True)
class Real:
    """One real picture with a defect: grey (H, W) float32 0..255, mask (H, W) 0/1 uint8."""

    defect: str
    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Host:
    """A good picture, grey (H, W) float32, and where the part lies in it, 0/1 uint8."""

    image: np.ndarray
    part: np.ndarray


@dataclass
class Pool:
    """Windows, column by column: defect and clean (N, 64, 64) uint8-valued grey, mask 0/1, and what the network is told."""

    defect: list[np.ndarray] = field(default_factory=list)
    clean: list[np.ndarray] = field(default_factory=list)
    mask: list[np.ndarray] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    real: list[bool] = field(default_factory=list)

    def add(self, label: int, real: bool, defect: np.ndarray, clean: np.ndarray, step: region.Step) -> None:
        """The pictures (H, W) as the step's window sees them, with the step's share of the mask."""
        window, mask = step.window, step.share.cut(step.window)
        if mask.sum() < 9:
            return
        self.defect.append(np.round(region.shrink(defect[window.slices])).astype(np.uint8))
        self.clean.append(np.round(region.shrink(clean[window.slices])).astype(np.uint8))
        self.mask.append(region.shrink_mask(mask).astype(np.uint8))
        self.label.append(label)
        self.scale.append(window.scale)
        self.real.append(real)


def real_paths(folder: Path, shots: Path | None = None) -> list[Path]:
    """Every real defect picture `folder`/<class>/NAME, or only those that the CSV `shots` lists in its column `image`.

    A listed path is taken from `folder`, or only its last two parts, <class>/NAME, are.
    """
    if shots:
        with shots.open(newline="") as f:
            listed = dict.fromkeys(Path(row["image"]) for row in csv.DictReader(f))
        paths = [folder / p if (folder / p).exists() else folder.joinpath(*p.parts[-2:]) for p in listed]
    else:
        paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in PICTURES and p.parent.name != "free")
    return [path for path in paths if not path.stem.endswith("_mask")]


def read_real(folder: Path, shots: Path | None = None) -> list[Real]:
    """The pictures at `real_paths` with their masks."""
    out = []
    for path in real_paths(folder, shots):
        image, mask = cv2.imread(str(path), 0), cv2.imread(str(path.with_name(path.stem + "_mask.png")), 0)
        if image is None or mask is None or mask.shape != image.shape:
            raise ValueError(f"{path}: expected a picture and, beside it, a mask of the same size named {path.stem}_mask.png")
        out.append(Real(path.parent.name, image.astype(np.float32), (mask > 127).astype(np.uint8)))
    return out


def read_good(folder: Path) -> list[np.ndarray]:
    """The good pictures in `folder`, grey (H, W) float32."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURES)
    return [np.asarray(cv2.imread(str(p), 0), np.float32) for p in paths]


def build(
    reals: Sequence[Real], good: Sequence[np.ndarray], classes: Sequence[str], shapes: Mapping[str, masks.Shape], seed: int,
    progress: Progress, per_real: int = 12, target: int = 300, windows: int = 1500,
) -> Pool:  # fmt: skip
    """The whole pool. per_real: windows from each real defect at least; small classes get more, up to `target` a class.

    shapes: those of the masks by class; windows: how many procedural ones.
    """
    pool, rng = Pool(), np.random.default_rng(seed)
    tiles = [Host(g, masks.part_of(g)) for g in good]
    counts = {c: max(1, sum(len(defects_clean.components(r.mask)) for r in reals if r.defect == c)) for c in classes}
    for i, real in enumerate(reals):
        progress("windows of real defects", i, len(reals))
        each = max(per_real, target // counts[real.defect])
        _real_windows(pool, real, classes.index(real.defect), tiles, each, rng)
    progress("procedural windows", 0, windows)
    made = painted(good, classes, shapes, windows, rng)
    for column, more in vars(made).items():
        getattr(pool, column).extend(more)
    return pool


def painted(
    good: Sequence[np.ndarray], classes: Sequence[str], shapes: Mapping[str, masks.Shape], windows: int,
    rng: np.random.Generator, metal: float = 0.3,
) -> Pool:  # fmt: skip
    """So many windows of procedural defects of the classes that can be painted, a share `metal` of them on procedural parts.

    The masks are the class's general ones or, every other time, those of `shapes`.
    """
    pool, known, each = Pool(), [c for c in classes if c in defects_draw.PAINTERS], 8
    while known and len(pool.label) < windows:
        on_metal = not good or rng.random() < metal
        picture = good[int(rng.integers(len(good)))] if not on_metal else None
        host = _host(rng) if picture is None else Host(picture, masks.part_of(picture))
        for defect in [known[int(i)] for i in rng.integers(len(known), size=each)]:
            shape = shapes[defect] if defect in shapes and rng.random() < 0.5 else defects_draw.SHAPES[defect]
            unit = math.sqrt(host.image.size) / shape.field * float(np.exp(rng.normal(0, 0.2)))
            mask = masks.draw(shape, host.part, rng, unit)
            image = defects_draw.paint(defect, host.image, mask, host.part, rng)
            pool.add(classes.index(defect), False, *_view(image, host.image, mask, rng))
    return pool


def _real_windows(pool: Pool, real: Real, label: int, tiles: Sequence[Host], each: int, rng: np.random.Generator) -> None:
    everything = cv2.dilate(real.mask, np.ones((5, 5), np.uint8))
    for one in defects_clean.components(real.mask):
        wide = cv2.dilate(one, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
        large, (_, _, w, h) = bool(wide.mean() > 0.12), cv2.boundingRect(wide)
        movable = max(w, h) <= 110 and not _touches(wide, real.image)
        views = [defects_clean.without(real.image, wide, everything, rng) for _ in range(1 if large else 4)]
        own = cv2.dilate(one, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        for _ in range(each):
            clean, defect, mask = views[int(rng.integers(len(views)))], real.image, own
            host = tiles[int(rng.integers(len(tiles)))] if tiles and rng.random() < 0.75 else None
            if host and movable:
                moved = _moved(defect, clean, mask, host, rng)
                if moved is None:
                    continue
                defect, clean, mask = moved
            elif host and large:
                other = cv2.resize(host.image, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_AREA)
                clean, defect = other, defects_clean.transplant(defect, clean, mask, other, (0, 0), True)
            elif host:
                defect, clean, mask = _slid(defect, clean, mask, host, rng)
            if rng.random() < 0.8:
                defect, mask = _bent(defect, clean, mask, rng)
            if mask.any():
                pool.add(label, True, *_view(defect, clean, mask, rng))


def _bent(defect: np.ndarray, clean: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The same defect, a little turned, stretched and wavy, fainter or stronger; the good surface below stays as it is."""
    x, y, w, h = cv2.boundingRect(mask)
    x0, y0 = max(x - 24, 0), max(y - 24, 0)
    there = (slice(y0, y + h + 24), slice(x0, x + w + 24))
    change, m = (defect - clean)[there] * mask[there], mask[there].astype(np.float32)
    size = m.shape
    turn = cv2.getRotationMatrix2D((x + w / 2 - x0, y + h / 2 - y0), rng.normal(0, 5), float(np.exp(rng.normal(0, 0.12))))
    turn[0] *= math.exp(rng.normal(0, 0.1))
    turn[:, 2] += np.array([x + w / 2 - x0, y + h / 2 - y0]) - turn @ np.array([x + w / 2 - x0, y + h / 2 - y0, 1])
    yy, xx = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    sway = rng.uniform(0, min(3.0, 0.12 * max(w, h)))
    dx, dy = (sway * defects_draw.noise(rng, size, rng.uniform(6, 20)) for _ in range(2))
    mx = (turn[0, 0] * xx + turn[0, 1] * yy + turn[0, 2] + dx).astype(np.float32)
    my = (turn[1, 0] * xx + turn[1, 1] * yy + turn[1, 2] + dy).astype(np.float32)
    moved, covered = (cv2.remap(z, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for z in (change, m))
    out, bent = clean.copy(), np.zeros_like(mask)
    bent[there] = covered > 0.5
    out[there] = np.clip(out[there] + moved * float(np.exp(rng.normal(0.05, 0.2))) * bent[there], 0, 255)
    return out, bent


def _slid(
    defect: np.ndarray, clean: np.ndarray, mask: np.ndarray, on: Host, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A defect at an edge, as a change in units of the brightness, at the same edge of another good picture."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask)
    to_y, to_x = on.image.shape
    crop = mask[y : y + h, x : x + w][:to_y, :to_x]
    h, w = crop.shape
    sides = {"left": x, "right": width - x - w, "top": y, "bottom": height - y - h}
    near = min(sides, key=lambda side: sides[side])
    free_x, free_y = int(rng.integers(to_x - w + 1)), int(rng.integers(to_y - h + 1))
    at_x = {"left": min(x, to_x - w), "right": max(to_x - w - sides["right"], 0)}.get(near, free_x)
    at_y = {"top": min(y, to_y - h), "bottom": max(to_y - h - sides["bottom"], 0)}.get(near, free_y)
    there = (slice(at_y, at_y + h), slice(at_x, at_x + w))
    own = (slice(y, y + h), slice(x, x + w))
    ratio = (float(on.image[there].mean()) + 20) / (float(clean[own].mean()) + 20)
    out, moved = on.image.copy(), np.zeros(on.image.shape, np.uint8)
    moved[there] = crop
    out[there] = np.clip(out[there] + (defect - clean)[own] * crop * float(np.clip(ratio, 0.3, 3)), 0, 255)
    return out, on.image, moved


def _moved(
    defect: np.ndarray, clean: np.ndarray, mask: np.ndarray, on: Host, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The defect turned, zoomed and put onto another good picture; None where it finds no place."""
    host = on.image
    x, y, w, h = cv2.boundingRect(mask)
    side = int(1.5 * max(w, h)) + 10
    zoom = float(np.exp(rng.uniform(-0.25, 0.35)))
    turn = cv2.getRotationMatrix2D(
        (x + w / 2, y + h / 2), rng.uniform(0, 360) if max(w, h) < 40 else rng.uniform(-20, 20), zoom
    )
    turn[:, 2] += np.array([side / 2 - x - w / 2, side / 2 - y - h / 2])
    if rng.random() < 0.5:
        turn[0] = np.array([0, 0, side]) - turn[0]

    def patch(z: np.ndarray, how: int) -> np.ndarray:
        return np.asarray(cv2.warpAffine(z, turn, (side, side), flags=how, borderMode=cv2.BORDER_REFLECT_101))

    m = patch(mask, cv2.INTER_NEAREST)
    room = cv2.erode(on.part, np.ones((min(side, 61),) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    free = np.argwhere(room)
    free = free[(free[:, 0] >= side // 2) & (free[:, 1] >= side // 2)] if len(free) else free
    free = (
        free[(free[:, 0] < host.shape[0] - side // 2 - 1) & (free[:, 1] < host.shape[1] - side // 2 - 1)] if len(free) else free
    )
    if not len(free) or not m.any():
        return None
    cy, cx = free[rng.integers(len(free))]
    at = (int(cx - side // 2), int(cy - side // 2))
    out = defects_clean.transplant(patch(defect, cv2.INTER_LINEAR), patch(clean, cv2.INTER_LINEAR), m, host, at, False)
    whole = np.zeros(host.shape, np.uint8)
    whole[at[1] : at[1] + side, at[0] : at[0] + side] = m
    return out, host, whole


def _view(
    defect: np.ndarray, clean: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, region.Step]:
    """A window that a job would plan for this mask, jittered; of a walk one step, what comes before it already drawn."""
    wide = region.trimmed(cv2.dilate(mask, np.ones((3, 3), np.uint8)) if rng.random() < 0.4 else mask)
    steps = region.plan(wide, mask.shape)
    if len(steps) > 1:
        order = steps if rng.random() < 0.5 else steps[::-1]
        k = int(rng.integers(len(order)))
        if rng.random() < 0.7:
            whole = region.Window(0, 0, mask.shape[1], mask.shape[0])
            done = sum(step.share.cut(whole) for step in order[:k]) + np.zeros_like(mask)
            clean = np.where(done > 0, defect, clean)
        return defect, clean, order[k]
    (h, w), window = wide.pixels.shape, steps[0].window
    side = max(window.w, window.h)
    if side > region.SIDE:
        side = max(region.SIDE, math.ceil(side * rng.uniform(0.85, 1.3)))
    slack = min(0.5 * max(side * 0.97 - max(w, h), 0), 0.3 * side)
    shift_x, shift_y = rng.uniform(-slack, slack, 2)
    window = region.window_around(wide.x + w / 2 + shift_x, wide.y + h / 2 + shift_y, side, mask.shape)
    return defect, clean, region.Step(window, wide)


def _host(rng: np.random.Generator) -> Host:
    """A procedural part, any finish, size and exposure."""
    finish = surface.FINISHES[int(rng.integers(len(surface.FINISHES)))]
    image = surface.part(rng, rng, finish, int(rng.integers(420, 660)), int(rng.integers(360, 500))).astype(np.float32)
    image = np.clip(image * np.float32(rng.uniform(0.55, 1.35)), 0, 255)
    return Host(image, masks.part_of(image))


def _touches(mask: np.ndarray, image: np.ndarray) -> bool:
    """Whether the mask meets the picture's border or the dark background."""
    x, y, w, h = cv2.boundingRect(mask)
    at_border = x < 4 or y < 4 or x + w > mask.shape[1] - 4 or y + h > mask.shape[0] - 4
    near = cv2.dilate(mask, np.ones((9, 9), np.uint8))
    return at_border or bool((near & (1 - masks.part_of(image))).any() and mask.sum() > 300)


def columns(pool: Pool) -> dict[str, np.ndarray]:
    """The pool as arrays, with the strength of each change: mean of its blurred size under the mask, in units of the gain."""
    defect, clean, mask = (np.stack(c) for c in (pool.defect, pool.clean, pool.mask))
    strength = np.empty(len(defect), np.float32)
    for i in range(len(defect)):
        strength[i] = strength_of(
            defect[i].astype(np.float32) - clean[i], clean[i].astype(np.float32), mask[i].astype(np.float32)
        )
    return {
        "defect": defect, "clean": clean, "mask": mask, "label": np.array(pool.label, np.int64),
        "scale": np.array(pool.scale, np.float32), "real": np.array(pool.real), "strength": strength,
    }  # fmt: skip


def strength_of(change: np.ndarray, clean: np.ndarray, mask: np.ndarray) -> float:
    """Mean size of the slightly blurred change under the mask, in units of the gain; all (64, 64) float32."""
    _, gain = region.units(clean, mask)
    soft = np.abs(cv2.GaussianBlur(change * mask, (0, 0), 1.2))
    return float((soft * mask).sum() / max(float(mask.sum()), 1.0)) / gain


def strength_table(pool: dict[str, np.ndarray], classes: Sequence[str], points: int = 11) -> dict[str, list[float]]:
    """Class -> strength at severity 0, 0.1 ... 1: quantiles over its real windows, over all where there are few."""
    table = {}
    for k, name in enumerate(classes):
        mine = pool["label"] == k
        chosen = mine & pool["real"] if (mine & pool["real"]).sum() >= 20 else mine
        quantiles = np.quantile(pool["strength"][chosen], np.linspace(0.02, 0.98, points))
        table[name] = [round(float(q), 4) for q in np.maximum.accumulate(quantiles)]
    return table
