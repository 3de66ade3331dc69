"""Distils a finished defect model to 1, 2 and 4 steps, as the variant `distilled` of its bundle:

    python -m denoised.training.defects_distil DIR [--minutes 10] [--pairs 5000]

DIR is a bundle with the `work/` of its training. Pairs of a noise and what the model makes of it are drawn first; then a
copy of the model learns the straight way from each noise to its own result, in the variance-preserving scale and at the
times of 1, 2 and 4 steps alone (rectified flow: Liu et al. 2023, section 2.2, there with linear paths). Straight ways
need no small steps. `python -m denoised.training.variants DIR` measures it and makes its int8 file.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ..engines.bundle import read_bundle, write_sums
from ..engines.engine import Engine, open_engine
from ..engines.schedules import cosine
from ..plugins.kind import Problem
from ..plugins.play import solve, walk
from . import defects_data
from .defects_fit import Draw, Feeds, fit
from .defects_net import DefectNet, export

VARIANT, FILE = "distilled", "denoiser-distilled.onnx"
STEPS = (4, 2, 1)
RATE, BATCH = 6e-4, 16
TEACHER = ("dpmpp_2m", 8)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.defects_distil", description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of the bundle, with the work/ of its training")
    parser.add_argument("--minutes", type=float, default=10, help="CPU minutes on one core, beside the pairs (default 10)")
    parser.add_argument("--pairs", type=int, default=5000, help="results of the model to learn from (default 5000, 3 minutes)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    try:
        distil(args.bundle, args.minutes, args.pairs, args.seed)
    except (OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def distil(folder: Path, minutes: float, pairs: int, seed: int) -> None:
    """Adds the variant to the bundle in `folder`, with operating points that are still to be measured."""
    bundle, work = read_bundle(folder), folder / "work"
    classes = bundle.manifest.classes
    kept = torch.load(work / "state.pt", weights_only=True)
    net = DefectNet(len(classes))
    net.load_state_dict(kept["averaged"])
    if not (work / "pairs.npz").exists():
        with np.load(work / "pool.npz") as f:
            pool = dict(f)
        table = defects_data.strength_table(pool, classes)
        engine = open_engine(bundle.file(bundle.manifest.variants["fp32"]["denoiser"]))
        drawn = _pairs(engine, Draw(pool, table, classes, dict.fromkeys(classes, 0.7)), pairs, seed)
        engine.close()
        np.savez(work / "pairs.npz", **drawn)  # type: ignore[arg-type]
    with np.load(work / "pairs.npz") as f:
        learnt = Pairs(dict(f))
    times = [2 / math.pi * math.atan(sigma) for steps in (*STEPS, 1) for sigma in cosine(steps)[:-1]]
    fitted = fit(net, learnt, minutes, work / "distilled.pt", seed, RATE, BATCH, times)
    export(fitted.net, folder / FILE)
    plain: dict[str, Any] = yaml.safe_load((folder / "model.yaml").read_text("utf-8"))
    plain["variants"][VARIANT] = {"denoiser": FILE}
    points = [p for p in plain["operating_points"] if not p["variant"].startswith(VARIANT)]
    points += [{"variant": VARIANT, "sampler": "ddim", "steps": n, "batch": 8} for n in STEPS]
    plain["operating_points"] = points
    command = "python -m denoised.training.defects_distil"
    spent = round(fitted.cpu_s / 60, 1)
    plain["training"][VARIANT] = {"command": command, "pairs": pairs, "steps": fitted.steps, "cpu_minutes": spent}
    (folder / "model.yaml").write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120), "utf-8")
    write_sums(folder)
    print(f"variant {VARIANT} in {folder}: {fitted.steps} steps, {spent} CPU minutes", flush=True)


def _pairs(engine: Engine, draw: Draw, count: int, seed: int) -> dict[str, np.ndarray]:
    """`count` noises, what the model makes of them, and what it was told, column by column."""
    rng, told, last = np.random.default_rng([seed, 1]), [], time.monotonic()
    for first in range(0, count, BATCH):
        _, eps, feeds = draw(BATCH, rng)
        feeds["severity"] = torch.from_numpy(rng.uniform(0, 1, BATCH).astype(np.float32))
        plain = {name: values.numpy() for name, values in feeds.items()}
        sampler, steps = TEACHER
        end = solve(walk(Problem(eps.numpy(), plain, tuple(range(BATCH))), engine, cosine(steps), sampler, "v"))
        told.append({"x0": end, "eps": eps.numpy(), **plain})
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"pairs {first}/{count}", flush=True)
    return {name: np.concatenate([t[name] for t in told]).astype(np.float16) for name in told[0]}


class Pairs:
    """Draws batches of pairs, mirrored at random; see `defects_fit.Batch`."""

    def __init__(self, columns: dict[str, np.ndarray]):
        self.columns = columns

    def __call__(self, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, Feeds]:
        """See the class."""
        ids = rng.integers(len(self.columns["x0"]), size=size)
        mirrored = rng.random(2) < 0.5
        batch = {}
        for name, values in self.columns.items():
            chosen = torch.from_numpy(values[ids].astype(np.float32))
            axes = [axis for axis, flip in zip((2, 3), mirrored) if flip and chosen.ndim == 4]
            batch[name] = chosen.flip(axes) if axes else chosen
        return batch.pop("x0"), batch.pop("eps"), batch


if __name__ == "__main__":
    sys.exit(main())
