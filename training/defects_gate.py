"""Makes the acceptance gate's reference of a finished bundle, from real defects and good pictures:

    denoised-train gate models/surface-defects --images DIR [--good DIR] [--shots FILE.csv]

Folders as for `denoised.training.defects`. Pictures of one physical part share what stands before the first `_` of their
names; floors and limits come from parts that the detector of that fold has not seen. Leaves `gate.json` and
`detector.onnx` in the bundle, names them in its manifest and renews its sums.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ..engines.bundle import read_bundle, write_sums
from ..plugins.defect_synthesis import gate, masks, measure, region
from . import defects_clean, defects_data, defects_detector
from .defects_check import parts_of

FOLDS, STEPS = 4, 1000
QUIET, PASS, LEAST = 0.98, 0.8, 0.1
"""Share of the cells of good surface that stay below the detector's level; share of the real defects on parts that it has not
seen that pass the floor of agreement; a floor below LEAST tells nothing, and the class is left out of that condition."""
VARIATIONS = 12
"""Jittered windows of each real defect that the detector learns from."""


@dataclass(frozen=True)
class Defect:
    """One real defect of a picture: grey (H, W) float32, mask (H, W) 0/1, its class and the physical part it is on."""

    image: np.ndarray
    mask: np.ndarray
    name: str
    part: str

    @property
    def view(self) -> measure.View:
        """As the gate sees it."""
        return measure.view_of_real(self.image, self.mask)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="denoised-train gate", description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of the bundle; its gate.json and detector.onnx are made again")
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/NAME.jpg + NAME_mask.png and free/*.jpg")
    parser.add_argument("--good", type=Path, help="folder of good pictures (default: free/ in --images)")
    parser.add_argument("--shots", type=Path, help="CSV with a column 'image': only these real defects may be used")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"of training, for the detector of each fold (default {STEPS})"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        good = args.good or args.images / "free"
        make(args.bundle, args.images, good, args.shots, args.steps, args.seed)
    except (OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def make(folder: Path, images: Path, good: Path, shots: Path | None, steps: int = STEPS, seed: int = 0) -> gate.Reference:
    """Puts the reference and the detector into the bundle in `folder`; prints what it finds."""
    torch.set_num_threads(1)
    began = time.process_time()
    bundle = read_bundle(folder)
    found = read_defects(images, shots)
    missing = set(bundle.manifest.classes) - {d.name for d in found}
    if missing:
        raise ValueError(f"{images}: no real defect of {', '.join(sorted(missing))}; the gate needs at least one of each class")
    plain = defects_data.read_good(good)
    if not plain:
        raise ValueError(f"{good}: no good picture found; the gate needs some")
    reference = _reference(found, plain, steps, seed, folder / "detector.onnx")
    (folder / "gate.json").write_text(json.dumps(asdict(reference), indent=1) + "\n")
    text: dict[str, Any] = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    for files in text["variants"].values():
        files["detector"] = "detector.onnx"
    text["geometry"]["gate"] = "gate.json"
    about = {"command": "denoised-train gate", "cpu_minutes": round((time.process_time() - began) / 60, 1)}
    text["training"]["gate"] = about | {"seed": seed}
    (folder / "model.yaml").write_text(yaml.safe_dump(text, sort_keys=False, allow_unicode=True, width=120), "utf-8")
    write_sums(folder)
    return reference


def read_defects(images: Path, shots: Path | None = None) -> list[Defect]:
    """Every separate defect of the real pictures."""
    paths = defects_data.real_paths(images, shots)
    parts = parts_of([p.stem for p in paths])
    found = []
    for part, real in zip(parts, defects_data.read_real(images, shots)):
        found += [Defect(real.image, one, real.defect, part) for one in defects_clean.components(real.mask)]
    return found


def _reference(found: list[Defect], good: list[np.ndarray], steps: int, seed: int, onnx: Path) -> gate.Reference:
    views = [d.view for d in found]
    looks = [measure.look(view) for view in views]
    names, parts = np.array([d.name for d in found]), np.array([d.part for d in found])
    known = np.concatenate([measure.descriptors(view)[:1] for view in views])
    outlines = np.stack([measure.outline(view)[0] for view in views])
    alike, shapes = _likenesses(views, known, outlines, parts)
    level, silent, floors = _detector(found, views, good, steps, seed, onnx)
    classes = {}
    for name in sorted(set(names)):
        mine = names == name
        seen = len(set(parts[mine]))
        contrast, completeness = (
            band([look[k] for look, m in zip(looks, mine) if m and k in look], seen) for k in ("contrast", "completeness")
        )
        same, shape = (max(float(np.quantile(v, 0.95)), float(np.quantile(v[mine], 0.95))) for v in (alike, shapes))
        classes[name] = gate.ClassReference(
            contrast, completeness, floors[name], round(same, 3), round(max(0.9, shape), 3), int(mine.sum()), seen
        )
        print(f"{name:10} {classes[name]}", flush=True)
    surfaces = [measure.surface(picture) for picture in good]
    ground = {key: band([s[key] for s in surfaces], len(surfaces), 0.01, 0.4) for key in surfaces[0]}
    scaled = np.round(known / np.abs(known).max(1, keepdims=True) * 127).astype(np.int8)
    stored = (base64.b64encode(a.tobytes()).decode() for a in (scaled, np.packbits(outlines, axis=1)))
    return gate.Reference(classes, level, silent, ground, *stored)


def band(values: Sequence[float], parts: int, tail: float = 0.05, margin: float = 0.0) -> gate.Range:
    """The range that holds all but `tail` at either end, wider where few parts were seen.

    Positive numbers, near log-normal: to their quantiles comes what a prediction interval from so few parts has beyond a
    known normal distribution, and `margin`, both in the logarithm.
    """
    if not values:
        return 0.0, 1e6
    logs = np.log(np.maximum(values, 1e-3))
    few = max(parts - 1, 0.5)
    beyond = math.sqrt(1 + 1 / max(parts, 1)) * (1 + 1.2 / few) - 1
    extra = 1.645 * max(float(logs.std()), 0.1) * beyond + margin
    low, high = np.quantile(logs, (tail, 1 - tail))
    return round(math.exp(low - extra), 4), round(math.exp(high + extra), 4)


def _likenesses(
    views: list[measure.View], known: np.ndarray, outlines: np.ndarray, parts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How like each real defect is to its nearest one on any other part, patch and outline: (n,) each."""
    alike, shapes = np.full(len(views), gate.COPY), np.full(len(views), 0.9)
    for i, view in enumerate(views):
        others = parts != parts[i]
        if others.any():
            alike[i] = (measure.descriptors(view) @ known[others].T).max()
            shapes[i] = measure.likeness_of_outlines(outlines[i], outlines[others]).max()
    return alike, shapes


def _detector(
    found: list[Defect], views: list[measure.View], good: list[np.ndarray], steps: int, seed: int, onnx: Path
) -> tuple[float, float, dict[str, float | None]]:
    """Level, silence and floors from detectors that did not see the part in question; leaves the one of all parts at `onnx`."""
    rng = np.random.default_rng(seed)
    windows, owner = _learnt(found, rng)
    plain = good_windows(good, found, rng)
    names, parts = np.array([d.name for d in found]), np.array([d.part for d in found])
    fold = folds(names, parts)
    count = int(fold.max()) + 1
    answers: list[np.ndarray | None] = [None] * len(found)
    calm = []
    for k in range(count if count > 1 else 0):
        held = fold == k
        rest = np.arange(len(plain)) % count != k
        say = _say(f"fold {k + 1} of {count}")
        net = defects_detector.fit(windows.only(~held[owner]), plain[rest], steps, seed, say)
        for i in np.flatnonzero(held):
            answers[i] = net.respond(views[i].after)
        calm.append(net.respond(plain[~rest]))
    net = defects_detector.fit(windows, plain, steps, seed, _say("all parts"))
    defects_detector.export(net, onnx)
    if not calm:
        return 0.0, 1.0, dict.fromkeys(set(names))
    quiet = np.concatenate(calm)
    level = float(np.quantile(quiet, QUIET))
    cells = [measure.on_grid(view.mask) for view in views]
    falsely = [measure.coverage(q[None], cells[i % len(cells)][:1], level) for i, q in enumerate(quiet)]
    floors: dict[str, float | None] = {}
    for name in sorted(set(names)):
        mine = [measure.agreement(a, c, level) for a, c, n in zip(answers, cells, names) if n == name and a is not None]
        floor = float(np.quantile(mine, 1 - PASS))
        floors[name] = round(floor, 3) if floor >= LEAST and len(set(parts[names == name])) > 1 else None
        told = ", ".join(f"{q:.2f}" for q in np.quantile(mine, (0.05, 0.1, 0.25, 0.5, 0.75)))
        print(f"{name:10} agreement on parts not seen, 5/10/25/50/75 %: {told}", flush=True)
    return round(level, 3), round(max(0.1, float(np.quantile(falsely, 0.95))), 3), floors


def folds(names: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The fold of each defect: the parts of every class dealt out in turn, a part never split."""
    of_part: dict[str, int] = {}
    for name in sorted(set(names)):
        for n, part in enumerate(sorted(set(parts[names == name]))):
            of_part.setdefault(part, n % FOLDS)
    given = np.array([of_part[p] for p in parts])
    return np.searchsorted(np.unique(given), given)


def _learnt(found: list[Defect], rng: np.random.Generator) -> tuple[defects_detector.Windows, np.ndarray]:
    """Jittered windows of every defect, classes and parts alike often; and which defect each belongs to."""
    grey, mask, owner = [], [], []
    for i, defect in enumerate(found):
        steps = region.plan(region.trimmed(defect.mask), defect.mask.shape)
        for _ in range(VARIATIONS):
            step = steps[int(rng.integers(len(steps)))].window
            side = max(16, round(max(step.w, step.h) * math.exp(rng.uniform(-0.25, 0.25))))
            x, y = (a + b / 2 + rng.uniform(-0.2, 0.2) * side for a, b in ((step.x, step.w), (step.y, step.h)))
            view = measure.view_of_real(defect.image, defect.mask, [region.window_around(x, y, side, defect.mask.shape)])
            if view.mask.any():
                grey.append(np.round(view.after[0]).astype(np.uint8))
                mask.append(view.mask[0])
                owner.append(i)
    owners = np.array(owner)
    kinds = [f"{found[i].name}/{found[i].part}" for i in owners]
    shares = {k: 1 / kinds.count(k) / len({o for o in set(kinds) if o.split("/")[0] == k.split("/")[0]}) for k in set(kinds)}
    return defects_detector.Windows(np.stack(grey), np.stack(mask), np.array([shares[k] for k in kinds])), owners


def good_windows(good: list[np.ndarray], found: list[Defect], rng: np.random.Generator, count: int = 1500) -> np.ndarray:
    """Windows of good surface (count, SIDE, SIDE) uint8, as large as those of the defects, on the part."""
    sides = [max(s.window.w, s.window.h) for d in found for s in region.plan(region.trimmed(d.mask), d.mask.shape)]
    grounds = [np.argwhere(masks.part_of(picture)) for picture in good]
    out = []
    for n in range(count):
        picture = good[n % len(good)]
        y, x = grounds[n % len(good)][rng.integers(len(grounds[n % len(good)]))]
        window = region.window_around(float(x), float(y), sides[int(rng.integers(len(sides)))], picture.shape)
        out.append(np.round(region.shrink(picture[window.slices])).astype(np.uint8))
    return np.stack(out)


def _say(what: str) -> Callable[[str], None]:
    return lambda text: print(f"{what}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
