"""What synthetic defects are worth: the same small detector trained on real defects without and with them, side by side,
and tried on parts that neither it nor the generator has seen.

    denoised-train evaluate --real DIR --synthetic DIR --test DIR [--steps N] [--seeds N]

--real, --test: <class>/PART_k.png with PART_k_mask.png beside it, and free/ with good pictures; `work/pictures` of a training
has this form. --synthetic: any tree of NAME.png with NAME_mask.png, such as the artifacts of jobs. Pictures of one part share
what stands before the first `_`; intervals resample parts, not pictures, and differences are paired over them.

miss: share of a defect's cells (2 x 2 pixels as the detector sees them) below the level that 0.3 % of the cells of good test
pictures pass; mean over pictures of a part, parts of a class, classes. F1: of pictures, at the level that 5 % of the good ones
pass; a defect counts as found where a cell on it passes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..plugins.defect_synthesis.region import SIDE
from . import defects_data, defects_detector
from .defects_check import parts_of

FALSE_CELLS, FALSE_PICTURES = 0.003, 0.05
WINDOWS, GOOD_WINDOWS = 16, 1500
"""Windows that are cut around each training defect, and of good surface in all."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Sample:
    """A picture as the detector sees it: grey (H, W) uint8, mask 0/1, its class ('' where good) and its part."""

    grey: np.ndarray
    mask: np.ndarray
    defect: str
    part: str


@dataclass(frozen=True)
class Scores:
    """Of one detector. miss: (pictures,) share of defect cells not found. found: (pictures,), alarms: (good pictures,) 0/1."""

    miss: np.ndarray
    found: np.ndarray
    alarms: np.ndarray


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="denoised-train evaluate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--real", type=Path, required=True, help="what both detectors learn from: <class>/ and free/")
    parser.add_argument("--synthetic", type=Path, required=True, help="what one of them learns from besides; any tree")
    parser.add_argument("--test", type=Path, required=True, help="other parts, seen by nothing before: <class>/ and free/")
    parser.add_argument("--good", type=Path, help="good pictures to learn from (default: free/ in --real)")
    parser.add_argument("--test-good", type=Path, help="good pictures to try on (default: free/ in --test)")
    parser.add_argument("--share", type=float, default=0.5, help="share of synthetic ones among its defects (default 0.5)")
    parser.add_argument("--shrink", type=int, default=2, help="pictures are made smaller by this factor (default 2)")
    parser.add_argument("--steps", type=int, default=600, help="of training, for each detector (default 600)")
    parser.add_argument("--seeds", type=int, default=3, help="detectors of each sort (default 3)")
    parser.add_argument("--json", type=Path, help="leave the figures in this file too")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        real, test = read(args.real, args.shrink), read(args.test, args.shrink)
        good, calm = (
            read_good(g, args.shrink) for g in (args.good or args.real / "free", args.test_good or args.test / "free")
        )
        synthetic = read_tree(args.synthetic, args.shrink)
        check(args, real, test, good, calm, synthetic)
    except (OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(f"real {len(real)}, synthetic {len(synthetic)}, good {len(good)}; test {len(test)} and {len(calm)} good", flush=True)
    arms: dict[str, list[Scores]] = {"without": [], "with": []}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        plain = good_windows(good, rng)
        own, made = windows(real, 1.0, rng), windows(synthetic, 1.0, rng)
        for name, learnt in (("without", own), ("with", mixed(own, made, args.share))):
            net = defects_detector.fit(learnt, plain, args.steps, seed, lambda text: None)
            arms[name].append(scores(net.respond, test, calm))
            print(f"seed {seed}, {name}: miss {mean_miss(arms[name][-1:], test):.3f}", flush=True)
    told = compare(arms, test, calm)
    print(*lines(told), sep="\n")
    if args.json:
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def check(
    args: argparse.Namespace, real: list[Sample], test: list[Sample], good: list[Sample], calm: list[Sample],
    synthetic: list[Sample],
) -> None:  # fmt: skip
    """Raises `ValueError` where the figures would mean nothing."""
    for what, folder, found in (("real", args.real, real), ("test", args.test, test), ("synthetic", args.synthetic, synthetic)):
        if not found:
            raise ValueError(f"{folder}: no {what} defect found; expected NAME.png with NAME_mask.png beside it, 255 = defect")
    for what, found in (("--good", good), ("--test-good", calm)):
        if not found:
            raise ValueError(f"{what}: no good picture found; expected some in free/, or in the folder that the option names")
    both = {s.part for s in real} & {s.part for s in test}
    if both:
        raise ValueError(f"{args.test}: part {min(both)} is in --real too; a part that was learnt from proves nothing: move it")
    if {s.defect for s in test} - {s.defect for s in real}:
        raise ValueError(
            f"{args.test}: has classes that --real has not: {sorted({s.defect for s in test} - {s.defect for s in real})}"
        )


def read(folder: Path, shrink: int) -> list[Sample]:
    """The defect pictures in <class>/ of the folder."""
    paths = defects_data.real_paths(folder)
    pairs = zip(paths, parts_of([p.stem for p in paths]), defects_data.read_real(folder))
    return [_sample(real.image, real.mask, real.defect, part, shrink) for _, part, real in pairs]


def read_good(folder: Path, shrink: int) -> list[Sample]:
    """The good pictures of a folder."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in defects_data.PICTURES)
    pictures = defects_data.read_good(folder)
    return [
        _sample(p, np.zeros(p.shape, np.uint8), "", part, shrink)
        for p, part in zip(pictures, parts_of([p.stem for p in paths]))
    ]


def read_tree(folder: Path, shrink: int) -> list[Sample]:
    """Every picture below the folder that has a mask beside it."""
    out = []
    for mask in sorted(folder.rglob("*_mask.png")):
        image = next((p for s in defects_data.PICTURES if (p := mask.with_name(mask.stem[:-5] + s)).exists()), None)
        if image is not None:
            grey, marked = (np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in (image, mask))
            out.append(_sample(grey.astype(np.float32), (marked > 127).astype(np.uint8), "synthetic", "", shrink))
    return out


def _sample(grey: np.ndarray, mask: np.ndarray, defect: str, part: str, shrink: int) -> Sample:
    size = tuple(max(SIDE, round(n / shrink)) for n in grey.shape[::-1])
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return Sample(np.round(small).astype(np.uint8), (share >= min(0.33, share.max() or 1)).astype(np.uint8), defect, part)


def windows(samples: Sequence[Sample], weight: float, rng: np.random.Generator) -> defects_detector.Windows:
    """Windows around places on the defects; classes and pictures alike often, `weight` in all."""
    grey, mask, each = [], [], []
    classes = [s.defect for s in samples]
    for sample in samples:
        places = np.argwhere(sample.mask)
        for _ in range(WINDOWS):
            y, x = (int(v) for v in places[rng.integers(len(places))] - rng.integers(16, 48, 2))
            y, x = (int(np.clip(v, 0, n - SIDE)) for v, n in zip((y, x), sample.grey.shape))
            grey.append(sample.grey[y : y + SIDE, x : x + SIDE])
            mask.append(sample.mask[y : y + SIDE, x : x + SIDE])
            each.append(weight / len(set(classes)) / classes.count(sample.defect) / WINDOWS)
    return defects_detector.Windows(np.stack(grey), np.stack(mask), np.array(each))


def mixed(own: defects_detector.Windows, made: defects_detector.Windows, share: float) -> defects_detector.Windows:
    """Both, `share` of the draws from `made`."""
    weight = np.concatenate([own.weight * (1 - share), made.weight * share])
    return defects_detector.Windows(np.concatenate([own.grey, made.grey]), np.concatenate([own.mask, made.mask]), weight)


def good_windows(good: Sequence[Sample], rng: np.random.Generator) -> np.ndarray:
    """(GOOD_WINDOWS, SIDE, SIDE) uint8."""
    out = []
    for n in range(GOOD_WINDOWS):
        grey = good[n % len(good)].grey
        y, x = (int(rng.integers(size - SIDE + 1)) for size in grey.shape)
        out.append(grey[y : y + SIDE, x : x + SIDE])
    return np.stack(out)


def response(respond: Callable[[np.ndarray], np.ndarray], grey: np.ndarray) -> np.ndarray:
    """Logits (H / 2, W / 2) over a whole picture from overlapping windows, the highest of them at each cell."""
    rows, columns = ([*range(0, n - SIDE, SIDE // 2), n - SIDE] for n in grey.shape)
    corners = [(y - y % 2, x - x % 2) for y in rows for x in columns]
    answers = respond(np.stack([grey[y : y + SIDE, x : x + SIDE] for y, x in corners]))
    out = np.full((grey.shape[0] // 2, grey.shape[1] // 2), -np.inf, np.float32)
    inner = np.zeros((SIDE // 2, SIDE // 2), bool)
    inner[4:-4, 4:-4] = True  # a detector knows little at the border of what it sees
    for (y, x), answer in zip(corners, answers):
        here = out[y // 2 : y // 2 + SIDE // 2, x // 2 : x // 2 + SIDE // 2]
        np.maximum(here, np.where(inner | ~np.isfinite(here), answer, -np.inf), out=here)
    return out


def scores(respond: Callable[[np.ndarray], np.ndarray], test: Sequence[Sample], calm: Sequence[Sample]) -> Scores:
    """What a detector makes of the test pictures."""
    quiet = [response(respond, s.grey) for s in calm]
    cell_level = float(np.quantile(np.concatenate([q[np.isfinite(q)] for q in quiet]), 1 - FALSE_CELLS))
    tops = np.array([q.max() for q in quiet])
    level = float(np.quantile(tops, 1 - FALSE_PICTURES))
    miss, found = [], []
    for sample in test:
        answer = response(respond, sample.grey)
        h, w = (2 * n for n in answer.shape)
        on = sample.mask[:h, :w].reshape(h // 2, 2, w // 2, 2).max((1, 3)) > 0
        miss.append(float((answer[on] <= cell_level).mean()) if on.any() else 1.0)
        found.append(float(on.any() and answer[on].max() > level))
    return Scores(np.array(miss), np.array(found), (tops > level).astype(float))


def mean_miss(runs: Sequence[Scores], test: Sequence[Sample], drawn: Sequence[tuple[str, str]] | None = None) -> float:
    """Over detectors, pictures of a part, parts of a class, classes. drawn: (class, part) resampled."""
    miss = np.mean([run.miss for run in runs], axis=0)
    of_part: dict[tuple[str, str], list[float]] = {}
    for sample, value in zip(test, miss):
        of_part.setdefault((sample.defect, sample.part), []).append(float(value))
    by_class: dict[str, list[float]] = {}
    for key in drawn or list(of_part):
        by_class.setdefault(key[0], []).append(float(np.mean(of_part[key])))
    return float(np.mean([np.mean(v) for v in by_class.values()]))


def f1(runs: Sequence[Scores], chosen: np.ndarray, calm: np.ndarray) -> float:
    """Of pictures: defects found, missed, and false alarms on good ones; indices of the pictures that count."""
    hits = np.mean([run.found[chosen].sum() for run in runs])
    alarms = np.mean([run.alarms[calm].sum() for run in runs])
    return float(2 * hits / max(len(chosen) + hits + alarms, 1))


def compare(arms: dict[str, list[Scores]], test: Sequence[Sample], calm: Sequence[Sample], seed: int = 0) -> dict[str, Any]:
    """Figures with 5 to 95 % intervals over parts; the difference is with - without on the same resampled parts."""
    rng = np.random.default_rng(seed)
    parts = {c: sorted({s.part for s in test if s.defect == c}) for c in sorted({s.defect for s in test})}
    of_part = {(c, p): [i for i, s in enumerate(test) if (s.defect, s.part) == (c, p)] for c in parts for p in parts[c]}
    calm_parts = sorted({s.part for s in calm})
    of_calm = {p: [i for i, s in enumerate(calm) if s.part == p] for p in calm_parts}
    draws: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(RESAMPLES):
        drawn = [(c, parts[c][i]) for c in parts for i in rng.integers(len(parts[c]), size=len(parts[c]))]
        chosen = np.array([i for key in drawn for i in of_part[key]])
        quiet = np.array([i for k in rng.integers(len(calm_parts), size=len(calm_parts)) for i in of_calm[calm_parts[k]]])
        for name, runs in arms.items():
            draws[name].append((mean_miss(runs, test, drawn), f1(runs, chosen, quiet)))
    everything, all_calm = np.arange(len(test)), np.arange(len(calm))
    told: dict[str, Any] = {"parts": {c: len(p) for c, p in parts.items()}}
    for k, figure in enumerate(("miss", "f1")):
        value = {n: mean_miss(r, test) if figure == "miss" else f1(r, everything, all_calm) for n, r in arms.items()}
        spread = {n: [round(float(q), 3) for q in np.quantile([d[k] for d in draws[n]], (0.05, 0.95))] for n in arms}
        apart = np.array([a[k] - b[k] for a, b in zip(draws["with"], draws["without"])])
        told[figure] = {n: {"value": round(value[n], 3), "interval": spread[n]} for n in arms} | {
            "difference": {
                "value": round(value["with"] - value["without"], 3),
                "interval": [round(float(q), 3) for q in np.quantile(apart, (0.05, 0.95))],
            }
        }
    by_class = {c: [i for i, s in enumerate(test) if s.defect == c] for c in parts}
    told["miss_by_class"] = {
        n: {c: round(float(np.mean([run.miss[i] for run in runs])), 3) for c, i in by_class.items()} for n, runs in arms.items()
    }
    return told


def lines(told: dict[str, Any]) -> list[str]:
    """The figures as text."""
    out = [f"{'':12}{'miss':>8}  {'5 to 95 %':18}{'F1':>8}  5 to 95 %"]
    tables = [told["miss"], told["f1"]]
    for name in ("without", "with", "difference"):
        cells = [f"{t[name]['value']:8.3f}  {str(t[name]['interval']):18}" for t in tables]
        out.append(f"{name:12}{''.join(cells)}".rstrip())
    out += [f"miss by class, {n}: {v}" for n, v in told["miss_by_class"].items()]
    low, high = tables[0]["difference"]["interval"]
    shown = "they help" if high < 0 else "they harm" if low > 0 else "no difference is shown; more test parts would tell"
    return [*out, f"The interval of the difference in miss is {low} to {high}: {shown}."]


if __name__ == "__main__":
    sys.exit(main())
