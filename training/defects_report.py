"""What an exported model achieves at each operating point, and its `model.yaml`.

Measured on windows of the pool through the ONNX file: the RMS distance, in grey levels under the mask, to 50 steps of
DDIM from the same noise, and the time of one image on one core of the machine that trained it.

    python -m denoised.training.defects_report --bundle DIR     measures a finished bundle again and prints the tables
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from ..engines import noise
from ..engines.engine import Engine, open_engine
from ..engines.schedules import cosine
from ..plugins.defect_synthesis import region
from ..plugins.kind import Problem
from ..plugins.play import solve, walk

POINTS = (("dpmpp_2m", 8), ("dpmpp_2m", 4), ("dpmpp_2m", 16))
"""The first is the default."""


def sample(engine: Engine, feeds: dict[str, np.ndarray], sampler: str, steps: int, seed: int = 0) -> np.ndarray:
    """The change (B, 1, 64, 64) that the network draws for these inputs, in units of the gain."""
    items = tuple(range(len(feeds["mask"])))
    unit = [region.start(noise.gaussian(seed, i, 0, (region.SIDE, region.SIDE))) for i in items]
    return solve(walk(Problem(np.stack(unit)[:, None] * feeds["mask"], feeds, items), engine, cosine(steps), sampler, "v"))


def windows(
    pool: dict[str, np.ndarray], classes: int, each: int, severity: float = 0.6
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The network's inputs for `each` windows of every class, and the gain of each, grey levels per unit."""
    rng = np.random.default_rng(1)
    ids = np.concatenate([rng.permutation(np.flatnonzero(pool["label"] == k))[:each] for k in range(classes)])
    clean, mask = pool["clean"][ids].astype(np.float32), pool["mask"][ids].astype(np.float32)
    levels = [region.units(c, m) for c, m in zip(clean, mask)]
    level, gain = (np.array(v, np.float32)[:, None, None] for v in zip(*levels))
    feeds = {
        "clean": np.clip((clean - level) / gain, -4, 4)[:, None], "mask": mask[:, None],
        "label": np.eye(classes, dtype=np.float32)[pool["label"][ids]],
        "severity": np.full(len(ids), severity, np.float32), "scale": pool["scale"][ids],
    }  # fmt: skip
    return feeds, gain[:, None]


def measure(onnx: Path, pool: dict[str, np.ndarray], classes: int, each: int = 4) -> list[dict[str, Any]]:
    """One row per operating point."""
    engine = open_engine(onnx)
    feeds, gain = windows(pool, classes, each)
    best = sample(engine, feeds, "ddim", 50)
    rows = []
    for sampler, steps in POINTS:
        began = time.process_time()
        out = sample(engine, feeds, sampler, steps)
        took = (time.process_time() - began) / len(out)
        mask = feeds["mask"]
        squares = ((out - best) * gain * mask) ** 2
        rms = float(np.sqrt(squares.sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean())
        quality = {"rms_grey": round(rms, 2), "cpu_ms_per_window": round(took * 1e3, 1)}
        rows.append({"variant": "fp32", "sampler": sampler, "steps": steps, "batch": 8, "quality": quality})
    engine.close()
    return rows


def dial(
    onnx: Path, pool: dict[str, np.ndarray], table: dict[str, list[float]], each: int = 16
) -> dict[str, list[tuple[float, float, float]]]:
    """Class -> (severity, strength that it asks for, median strength drawn) with the default sampler.

    Strength is the mean size of the change under the mask in units of the gain, as in `defects_data.strength_of`; the
    one asked for is what the real defects of the class have at this quantile.
    """
    engine = open_engine(onnx)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in table}
    for severity in (0.1, 0.5, 0.9):
        feeds, _ = windows(pool, len(table), each, severity)
        out = sample(engine, feeds, *POINTS[0])
        for k, (name, quantiles) in enumerate(table.items()):
            drawn = [
                float((np.abs(cv2.GaussianBlur(c * m, (0, 0), 1.2)) * m).sum() / m.sum())
                for c, m in zip(out[k * each : (k + 1) * each, 0], feeds["mask"][k * each : (k + 1) * each, 0])
            ]
            asked = float(np.interp(severity, np.linspace(0, 1, len(quantiles)), quantiles))
            rows[name].append((severity, asked, float(np.median(drawn))))
    engine.close()
    return rows


def manifest(
    out: Path, name: str, version: str, licence: str, classes: tuple[str, ...], summary: dict[str, Any],
    pool: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """Writes `out`/model.yaml."""
    text = {
        "name": name, "version": version, "kind": "defect-synthesis", "licence": licence, "training": summary,
        "prediction": "v", "schedule": "cosine", "variants": {"fp32": {"denoiser": "denoiser.onnx"}},
        "operating_points": measure(out / "denoiser.onnx", pool, len(classes)),
        "classes": list(classes), "geometry": {"side": region.SIDE, "shapes": "shapes.json"},
        "ranges": {"batch": [1, 8, 8]},
    }  # fmt: skip
    (out / "model.yaml").write_text(yaml.safe_dump(text, sort_keys=False, width=120))


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.defects_report", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--bundle", type=Path, required=True, help="folder of a bundle with the pool it was trained on in work/"
    )
    args = parser.parse_args(argv)
    with np.load(args.bundle / "work" / "pool.npz") as f:
        pool = dict(f)
    table = {name: facts["strength"] for name, facts in json.loads((args.bundle / "shapes.json").read_text()).items()}
    for row in measure(args.bundle / "denoiser.onnx", pool, len(table), 10):
        print(row["sampler"], row["steps"], row["quality"])
    for name, rows in dial(args.bundle / "denoiser.onnx", pool, table).items():
        print(f"{name:10s}", "  ".join(f"severity {s:.1f}: asked {asked:.2f} drawn {drawn:.2f}" for s, asked, drawn in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
