"""What synthetic defects are worth to a detector, with one, two or five real pictures of each class at hand:

    python bench/defect_value.py --judge FILE.py --tiles DIR --out DIR [--arms a,b,c,s] [--minutes 2.5] [--steps 400]

--judge is a program from outside this project that trains a small detector (`load`, `train`, `Outcome`); without it nothing
can be measured. --tiles holds train/<class>, train/free, val/... and fewshot.csv (seed,k,class,image). Arms: a the listed
real pictures with flips, b with warps and copy-paste, c the half of b's defects synthetic, s synthetic alone; p and q are c
and s with procedural defects in place of the model's. A cell is a list of shots and k, the first k of its pictures of each
class; the model of a cell sees these pictures alone. Tested on every other defect picture of train and val whose tile is
not among the listed ones, and on val/free. Each run leaves a row in OUT/rows; a run that has one is not repeated.

Miss: share of a picture's defect cells below the level that 0.3 % of the cells of all good pictures pass; mean over the
pictures of a tile, the tiles of a class, classes, seeds, lists. Intervals resample tiles, the same for both arms; the level
and the training are not resampled.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from denoised.plugins.defect_synthesis import masks
from denoised.training import defects_draw

CLASSES = ("blowhole", "break", "crack")
REAL, MODEL, PAINTED = "ab", "cs", "pq"
PAIRS = (("c", "a"), ("c", "b"), ("s", "b"), ("p", "a"), ("p", "b"), ("q", "b"), ("c", "p"), ("s", "q"))


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--judge", type=Path, required=True, help="the program that trains and scores the detectors")
    parser.add_argument("--tiles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="rows, models and pictures of every cell")
    parser.add_argument("--lists", default="0,1,2")
    parser.add_argument("--shots", default="1,2,5", help="real pictures a class")
    parser.add_argument("--arms", default="a,b,c,s")
    parser.add_argument("--seeds", default="0", help="of the detectors")
    parser.add_argument("--steps", type=int, default=400, help="of a detector's training (default 400)")
    parser.add_argument("--count", type=int, default=100, help="synthetic pictures a class (default 100)")
    parser.add_argument("--minutes", type=float, default=2.5, help="CPU minutes of training from the shots (default 2.5)")
    parser.add_argument("--table", action="store_true", help="only print the table of the rows that are there")
    args = parser.parse_args(argv)
    if not args.judge.exists():
        print(f"skipped: {args.judge} is not there, and it is the judge")
        return 0
    (args.out / "rows").mkdir(parents=True, exist_ok=True)
    if not args.table:
        _run(args)
    print(table([json.loads(p.read_text()) for p in sorted((args.out / "rows").glob("*.json"))]))
    return 0


def _run(args: argparse.Namespace) -> None:
    """Every run of the cells that has no row yet."""
    spec = importlib.util.spec_from_file_location("judge", args.judge)
    assert spec and spec.loader
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    judge.torch.set_num_threads(1)
    cv2.setNumThreads(1)
    free = [judge.load(p) for p in judge.images(str(args.tiles / "train" / "free"))]
    tested: dict[str, Any] = {}
    for k in (int(v) for v in args.shots.split(",")):
        for number in (int(v) for v in args.lists.split(",")):
            few, named = _listed(args.tiles, number, k)
            shots = [judge.load(str(args.tiles / f)) for f in few if Path(f).parent.name in CLASSES]
            for arm in args.arms.split(","):
                for seed in (int(v) for v in args.seeds.split(",")):
                    row = args.out / "rows" / f"k{k}_list{number}_{arm}_{seed}.json"
                    if row.exists():
                        continue
                    began, synthetic = time.process_time(), []
                    if arm not in REAL:
                        folder = _pictures(args, number, k, few, arm)
                        synthetic = [judge.load(p) for c in CLASSES for p in judge.images(str(folder / c))]
                        synthetic = [d for d in synthetic if "spots" in d]
                    role = {"p": "c", "q": "s"}.get(arm, arm)
                    net = judge.train(role, shots, free, synthetic, list(CLASSES), args.steps, 24, seed, 0.5)
                    test = [_seen(tested, judge, p) for p in _tests(args.tiles, named)]
                    facts = {"k": k, "list": number, "arm": arm, "seed": seed, "steps": args.steps}
                    facts |= score(judge.Outcome(net, test, list(CLASSES)))
                    facts["cpu_s"] = round(time.process_time() - began, 1)
                    row.write_text(json.dumps(facts) + "\n")
                    shown = {c: round(float(np.mean(list(v.values()))), 3) for c, v in facts["miss"].items()}
                    print(
                        row.stem, round(float(np.mean(list(shown.values()))), 3), shown, f"{facts['cpu_s']:.0f} s", flush=True
                    )


def _listed(tiles: Path, number: int, k: int) -> tuple[list[str], set[str]]:
    """The first k pictures of every class in a list, and the tiles that they show."""
    with (tiles / "fewshot.csv").open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["k"] == "5" and r["seed"] == str(number)]
    few = [f for c in sorted({r["class"] for r in rows}) for f in [r["image"] for r in rows if r["class"] == c][:k]]
    return few, {Path(f).name.split("_")[0] for f in few}


def _tests(tiles: Path, named: set[str]) -> list[Path]:
    """The good pictures of val, and the defects of all tiles that are not `named`."""
    found = [p for c in CLASSES for part in ("train", "val") for p in sorted((tiles / part / c).glob("*.jpg"))]
    return [p for p in found if p.name.split("_")[0] not in named] + sorted((tiles / "val" / "free").glob("*.jpg"))


def _seen(kept: dict[str, Any], judge: Any, path: Path) -> Any:
    if str(path) not in kept:
        kept[str(path)] = judge.load(str(path))
    return kept[str(path)]


def _pictures(args: argparse.Namespace, number: int, k: int, few: list[str], arm: str) -> Path:
    """The folder of the cell's synthetic pictures, made where it is not there yet."""
    cell = args.out / f"list{number}_k{k}"
    cell.mkdir(exist_ok=True)
    shots = cell / "shots.csv"
    shots.write_text("image\n" + "".join(f"{f}\n" for f in few))
    folder = cell / ("painted" if arm in PAINTED else "model")
    if not (folder / "done").exists():
        if arm in PAINTED:
            _painted(args.tiles / "train" / "free", folder, args.count, number)
        else:
            command = [sys.executable, Path(__file__).parent / "judges" / "synthesize.py"]
            command += ["--good", args.tiles / "train" / "free", "--shots", shots, "--images", args.tiles, "--seed", number]
            command += ["--count", args.count, "--classes", ",".join(CLASSES), "--minutes", args.minutes, "--out", folder]
            with (cell / "model.log").open("w") as log:
                subprocess.run([str(v) for v in command], check=True, stdout=log)
        (folder / "done").touch()
    return folder


def _painted(good: Path, folder: Path, count: int, seed: int) -> None:
    """Pictures with procedural defects, as the model has seen them before any real one."""
    names = sorted(good.glob("*.jpg"))
    for number, defect in enumerate(CLASSES):
        (folder / defect).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, number])
        for n in range(count):
            host = np.asarray(cv2.imread(str(names[int(rng.integers(len(names)))]), 0), np.float32)
            part, shape = masks.part_of(host), defects_draw.SHAPES[defect]
            mask = masks.draw(shape, part, rng, math.sqrt(host.size) / shape.field)
            image = np.rint(defects_draw.paint(defect, host, mask, part, rng)).astype(np.uint8)
            cv2.imwrite(str(folder / defect / f"{n:04d}.png"), image)
            cv2.imwrite(str(folder / defect / f"{n:04d}_mask.png"), mask * 255)


def score(out: Any) -> dict[str, Any]:
    """Class -> tile -> miss and escape, with the levels that all good pictures set."""
    good = np.sum(list(out.hist.values()), 0)
    tail = np.cumsum(good[::-1])[::-1] / good.sum()
    level = int(np.argmax(tail <= 0.003))
    rejects = float(np.quantile([v for values in out.goods.values() for v in values], 0.95))
    miss = {c: {p: float(np.mean([i[0][level - 1] for i in v])) for p, v in tiles.items()} for c, tiles in out.items.items()}
    escape = {c: {p: float(np.mean([i[1] <= rejects for i in v])) for p, v in tiles.items()} for c, tiles in out.items.items()}
    return {"miss": miss, "escape": escape}


def table(rows: list[dict[str, Any]], draws: int = 2000) -> str:
    """The rows pooled over lists and seeds, and the differences of arms, paired over tiles, with 95 % intervals."""
    lines = []
    for k in sorted({r["k"] for r in rows}):
        mine = [r for r in rows if r["k"] == k]
        arms = sorted({r["arm"] for r in mine})
        lines += [
            f"k = {k}",
            "",
            "| arm | runs | miss | blowhole | break | crack | escape |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for arm in arms:
            found = [r for r in mine if r["arm"] == arm]
            each = np.mean([[np.mean(list(r["miss"][c].values())) for c in CLASSES] for r in found], 0)
            escape = np.mean([[np.mean(list(r["escape"][c].values())) for c in CLASSES] for r in found])
            by_class = " | ".join(f"{v:.2f}" for v in each)
            lines.append(f"| {arm} | {len(found)} | {each.mean():.3f} | {by_class} | {escape:.3f} |")
        lines += ["", "| arms | runs | miss cut by | 95 % interval | break cut by |", "| --- | --- | --- | --- | --- |"]
        for x, y in (pair for pair in PAIRS if set(pair) <= set(arms)):
            both = {(r["list"], r["seed"]) for r in mine if r["arm"] == x} & {
                (r["list"], r["seed"]) for r in mine if r["arm"] == y
            }
            pairs = [
                [next(r for r in mine if (r["arm"], r["list"], r["seed"]) == (a, *at)) for a in (x, y)] for at in sorted(both)
            ]
            if not pairs:
                continue
            cut, at_breaks = cut_by(pairs, None)
            rng = np.random.default_rng(0)
            low, high = np.quantile([cut_by(pairs, rng)[0] for _ in range(draws)], (0.025, 0.975))
            lines.append(f"| {x} against {y} | {len(pairs)} | {cut:+.1%} | {low:+.1%} to {high:+.1%} | {at_breaks:+.1%} |")
        lines.append("")
    return "\n".join(lines)


def cut_by(pairs: list[list[dict[str, Any]]], rng: np.random.Generator | None) -> tuple[float, float]:
    """By what share the first arm's miss is below the second's, over all classes and at breaks; rng: of resampled tiles."""
    sums = np.zeros((2, len(CLASSES)))
    for k, name in enumerate(CLASSES):
        tiles = sorted({p for pair in pairs for p in pair[0]["miss"][name]})
        times = dict.fromkeys(tiles, 1) if rng is None else dict.fromkeys(tiles, 0)
        for i in () if rng is None else rng.integers(len(tiles), size=len(tiles)):
            times[tiles[i]] += 1
        for pair in pairs:
            weight = sum(times[p] for p in pair[0]["miss"][name])
            for arm in (0, 1):
                drawn = sum(times[p] * v for p, v in pair[arm]["miss"][name].items())
                sums[arm, k] += drawn / weight if weight else 0.0
    mine, other = sums.mean(1)
    at = CLASSES.index("break")
    return float(1 - mine / other), float(1 - sums[0, at] / sums[1, at])


if __name__ == "__main__":
    sys.exit(main())
