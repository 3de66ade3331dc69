"""Trains a defect-synthesis model and leaves it as a bundle:

    python -m denoised.training.defects --images DIR --out DIR [--minutes N] [--good DIR] [--shots FILE.csv]

DIR holds `<class>/NAME.jpg` with `NAME_mask.png` (255 = defect) and `free/*.jpg`, good pictures; the folders are the
model's classes. `--shots` (CSV with a column `image`) restricts the real defects. It begins with the weights of
`defects_base.npz`, which have seen good pictures and procedural defects alone: one to five real pictures a class and some
3 CPU minutes make a model of them. Stopping and starting again with the same --out goes on where it was; more --minutes
trains further.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..engines.bundle import write_sums
from ..plugins.defect_synthesis import masks
from . import defects_data, defects_draw
from .defects_base import BASE
from .defects_fit import Draw, fit
from .defects_net import export, load_weights
from .defects_report import manifest

RATE = 8e-4
PRIOR = 1.5
"""So many real pictures of a class weigh as much as the procedural defects of it."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.defects", description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/NAME.jpg + NAME_mask.png and free/*.jpg")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the bundle; work/ in it keeps the state to go on from"
    )
    parser.add_argument(
        "--minutes", type=float, default=3, help="CPU minutes on one core, beside preparing the data (default 3)"
    )
    parser.add_argument("--good", type=Path, help="folder of good pictures (default: free/ in --images)")
    parser.add_argument("--shots", type=Path, help="CSV with a column 'image': only these real defects may be used")
    parser.add_argument("--name", default="surface-defects", help="name of the bundle")
    parser.add_argument("--version", default="0.1.0", help="version of the bundle")
    parser.add_argument("--licence", default="Apache-2.0", help="licence of the weights")
    parser.add_argument("--data", default="", help="where the pictures come from, in words, for the manifest")
    parser.add_argument(
        "--windows", type=int, default=1500, help="procedural windows to mix in; 0: the real pictures alone (default 1500)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        good = args.good or args.images / "free"
        about = About(args.name, args.version, args.licence, args.data)
        train(args.images, good, args.out, args.minutes, about, args.shots, args.seed, args.windows)
    except (OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True)
class About:
    """What the manifest says of the bundle beside what is measured."""

    name: str
    version: str = "0.1.0"
    licence: str = "Apache-2.0"
    data: str = ""


def train(
    images: Path,
    good: Path,
    out: Path,
    minutes: float,
    about: About,
    shots: Path | None = None,
    seed: int = 0,
    windows: int = 1500,
) -> None:
    """Data, training, export. Prints progress; every minute leaves a checkpoint in `out`/work."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    reals = defects_data.read_real(images, shots)
    classes = tuple(sorted({r.defect for r in reals}))
    if not reals:
        raise ValueError(f"{images}: no real defect found; expected <class>/NAME.jpg with NAME_mask.png beside it")
    counts = {c: sum(r.defect == c for r in reals) for c in classes}
    shapes = {c: _shape(reals, c) for c in classes}
    pool = _pool(work, good, reals, shapes, seed, windows)
    table = defects_data.strength_table(pool, classes)
    share = {c: n / (n + PRIOR) for c, n in counts.items()}
    fitted = fit(load_weights(BASE, classes), Draw(pool, table, classes, share), minutes, work / "state.pt", seed, RATE)

    export(fitted.net, out / "denoiser.onnx")
    looks = {c: {**asdict(shapes[c]), "strength": table[c]} for c in classes}
    (out / "shapes.json").write_text(json.dumps(looks, indent=1) + "\n")
    summary = {
        "data": about.data,
        "real_defects": counts,
        "good_pictures": len(defects_data.read_good(good)),
        "procedural_windows": int((~pool["real"]).sum()), "real_windows": int(pool["real"].sum()),
        "steps": fitted.steps, "cpu_minutes": round(fitted.cpu_s / 60, 1), "command": "python -m denoised.training.defects",
        "seed": seed,
    }  # fmt: skip
    manifest(out, about.name, about.version, about.licence, classes, summary, pool)
    write_sums(out)
    print(f"bundle {about.name} {about.version} in {out}", flush=True)


def _shape(reals: list[defects_data.Real], defect: str) -> masks.Shape:
    mine = [r for r in reals if r.defect == defect]
    return masks.fit([r.mask for r in mine], [masks.part_of(r.image) for r in mine], defects_draw.SHAPES.get(defect))


def _pool(
    work: Path, good: Path, reals: list[defects_data.Real], shapes: dict[str, masks.Shape], seed: int, windows: int
) -> dict[str, np.ndarray]:
    kept = work / "pool.npz"
    if kept.exists():
        with np.load(kept) as f:
            return dict(f)
    last = [0.0]

    def say(what: str, done: int, of: int) -> None:
        if time.monotonic() - last[0] > 5:
            last[0] = time.monotonic()
            print(f"{what} {done}/{of}", flush=True)

    made = defects_data.build(reals, defects_data.read_good(good), tuple(shapes), shapes, seed, say, windows=windows)
    pool = defects_data.columns(made)
    np.savez(kept, **pool)  # type: ignore[arg-type]
    return pool


if __name__ == "__main__":
    sys.exit(main())
