"""Trains a defect-synthesis model and leaves it as a bundle:

    python -m denoised.training.defects --images DIR --out DIR [--minutes N] [--good DIR] [--shots FILE.csv]

DIR holds `<class>/NAME.jpg` with `NAME_mask.png` (255 = defect) and `free/*.jpg`, good pictures; the folders are the
model's classes. `--shots` (CSV with a column `image`) restricts the real defects. Stopping and starting again with the
same --out goes on where it was; more --minutes trains further.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..engines.bundle import write_sums
from ..plugins.defect_synthesis import masks, region
from . import defects_data, defects_draw
from .defects_net import DefectNet, export
from .defects_report import manifest

RATE = 1.2e-3


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.defects", description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/NAME.jpg + NAME_mask.png and free/*.jpg")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the bundle; work/ in it keeps the state to go on from"
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="CPU minutes on one core, beside preparing the data (default 60)"
    )
    parser.add_argument("--good", type=Path, help="folder of good pictures (default: free/ in --images)")
    parser.add_argument("--shots", type=Path, help="CSV with a column 'image': only these real defects may be used")
    parser.add_argument("--name", default="surface-defects", help="name of the bundle")
    parser.add_argument("--version", default="0.1.0", help="version of the bundle")
    parser.add_argument("--licence", default="Apache-2.0", help="licence of the weights")
    parser.add_argument("--data", default="", help="where the pictures come from, in words, for the manifest")
    parser.add_argument(
        "--parts", type=int, default=500, help="procedural parts to mix in; 0: the real pictures alone (default 500)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        good = args.good or args.images / "free"
        about = About(args.name, args.version, args.licence, args.data)
        train(args.images, good, args.out, args.minutes, about, args.shots, args.seed, args.parts)
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
    parts: int = 500,
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
    pool = _pool(work, good, reals, classes, seed, parts)
    table = defects_data.strength_table(pool, classes)
    net = DefectNet(len(classes))
    averaged, steps, spent = _fit(net, pool, table, classes, minutes, work / "state.pt", seed)

    export(averaged, out / "denoiser.onnx")
    shapes = {c: _shape(reals, c) for c in classes}
    fitted = {c: {**asdict(shapes[c]), "strength": table[c]} for c in classes}
    (out / "shapes.json").write_text(json.dumps(fitted, indent=1) + "\n")
    summary = {
        "data": about.data,
        "real_defects": {c: sum(r.defect == c for r in reals) for c in classes},
        "good_pictures": len(defects_data.read_good(good)),
        "procedural_windows": int((~pool["real"]).sum()), "real_windows": int(pool["real"].sum()),
        "steps": steps, "cpu_minutes": round(spent / 60, 1), "command": "python -m denoised.training.defects", "seed": seed,
    }  # fmt: skip
    manifest(out, about.name, about.version, about.licence, classes, summary, pool)
    write_sums(out)
    print(f"bundle {about.name} {about.version} in {out}", flush=True)


def _shape(reals: list[defects_data.Real], defect: str) -> masks.Shape:
    mine = [r for r in reals if r.defect == defect]
    if not mine:
        return defects_draw.SHAPES[defect]
    return masks.fit([r.mask for r in mine], [masks.part_of(r.image) for r in mine])


def _pool(
    work: Path, good: Path, reals: list[defects_data.Real], classes: tuple[str, ...], seed: int, parts: int
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

    pool = defects_data.columns(defects_data.build(reals, defects_data.read_good(good), classes, seed, say, parts=parts))
    np.savez(kept, **pool)  # type: ignore[arg-type]
    return pool


def _fit(
    net: DefectNet, pool: dict[str, np.ndarray], table: dict[str, list[float]], classes: tuple[str, ...], minutes: float,
    state: Path, seed: int, batch: int = 32,
) -> tuple[DefectNet, int, float]:  # fmt: skip
    """Trains `net`; returns its moving average, the number of steps and the CPU seconds they took."""
    draw = Draw(pool, table, classes)
    net = net.to(memory_format=torch.channels_last)
    averaged = DefectNet(len(classes))
    averaged.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2, betas=(0.9, 0.99))
    step, spent, losses = 0, 0.0, []
    if state.exists():
        kept = torch.load(state, weights_only=True)
        net.load_state_dict(kept["net"])
        averaged.load_state_dict(kept["averaged"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        print(f"going on from step {step}, {spent / 60:.1f} min", flush=True)
    rng = np.random.default_rng([seed, step])
    total, began, saved = minutes * 60, time.process_time() - spent, time.process_time()
    while spent < total:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * min(spent / total, 1.0)) + 0.01)
        x0, feeds = draw.batch(batch, rng)
        t = torch.from_numpy(((np.arange(batch) + rng.random(batch)) / batch).astype(np.float32))
        alpha, sigma = torch.cos(t * math.pi / 2)[:, None, None, None], torch.sin(t * math.pi / 2)[:, None, None, None]
        mask = feeds["mask"]
        white = rng.standard_normal((batch, region.SIDE, region.SIDE), dtype=np.float32)
        eps = torch.from_numpy(np.stack([region.coloured(w) for w in white])[:, None]) * mask
        with torch.autocast("cpu", dtype=torch.bfloat16):
            v = net((alpha * x0 + sigma * eps).to(memory_format=torch.channels_last), t, **feeds)
        each = ((v.float() - (alpha * eps - sigma * x0)) ** 2 * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
        loss = each.mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), net.parameters()):
                slow.lerp_(fast, 1 - keep)
        losses.append(loss.item())
        spent = time.process_time() - began
        if step % 50 == 0:
            left = (total - spent) / 60
            print(
                f"step {step}  loss {np.mean(losses[-200:]):.4f}  {spent / 60:.1f} of {minutes:g} min, {left:.1f} left",
                flush=True,
            )
        if time.process_time() - saved > 60 or spent >= total:
            saved = time.process_time()
            torch.save(
                {
                    "net": net.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                    "spent": spent,
                },
                state.with_suffix(".new"),
            )
            state.with_suffix(".new").replace(state)
    return averaged, step, spent


class Draw:
    """Draws batches from the pool: classes alike often, real windows more often than procedural ones, mirrored and re-lit."""

    def __init__(self, pool: dict[str, np.ndarray], table: dict[str, list[float]], classes: tuple[str, ...], real: float = 0.6):
        self.pool, self.real, self.count = pool, real, len(classes)
        points = np.linspace(0, 1, len(next(iter(table.values()))))
        tables = [np.array(table[c]) + 1e-6 * np.arange(len(points)) for c in classes]
        self.severity = np.array([np.interp(s, tables[k], points) for s, k in zip(pool["strength"], pool["label"])], np.float32)
        self.ids = [
            [np.flatnonzero((pool["label"] == k) & (pool["real"] == r)) for r in (False, True)] for k in range(self.count)
        ]

    def batch(self, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The clean change (B, 1, 64, 64) and the network's inputs beside x and t."""
        change = np.zeros((size, 1, region.SIDE, region.SIDE), np.float32)
        clean, mask = change.copy(), change.copy()
        label, severity, scale = (
            np.zeros((size, self.count), np.float32),
            np.zeros(size, np.float32),
            np.zeros(size, np.float32),
        )
        for b in range(size):
            made, real = self.ids[int(rng.integers(self.count))]
            ids = real if len(real) and (not len(made) or rng.random() < self.real) else made
            i = int(ids[rng.integers(len(ids))])
            y, c, m = (self.pool[k][i].astype(np.float32) for k in ("defect", "clean", "mask"))
            turns = (slice(None, None, -1 if rng.random() < 0.5 else 1), slice(None, None, -1 if rng.random() < 0.5 else 1))
            y, c, m = y[turns], c[turns], m[turns]
            if not self.pool["real"][i] and rng.random() < 0.5:
                y, c, m = y.T, c.T, m.T
            level, gain = region.units(c, m)
            gain *= float(np.exp(rng.normal(0, 0.08)))
            change[b, 0], clean[b, 0], mask[b, 0] = (y - c) * m / gain, np.clip((c - level) / gain, -4, 4), m
            label[b, self.pool["label"][i]] = 1
            severity[b], scale[b] = self.severity[i], self.pool["scale"][i]
        feeds = {"clean": clean, "mask": mask, "label": label, "severity": severity, "scale": scale}
        return torch.from_numpy(change), {k: torch.from_numpy(v) for k, v in feeds.items()}


if __name__ == "__main__":
    sys.exit(main())
