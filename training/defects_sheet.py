"""A contact sheet of what a model draws, good | mask | synthetic for every class, on procedural parts or given pictures:

python -m denoised.training.defects_sheet --bundle DIR --out sheet.png [--images DIR] [--columns N] [--seed S] [--point N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from ..demo import surface
from ..engines.bundle import SHIPPED, Bundle, OperatingPoint, read_bundle
from ..engines.engine import Engine, open_engine
from ..plugins.defect_synthesis.kind import KIND
from ..plugins.kind import Site, Task
from ..plugins.play import play

TILE = 144
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def sheet(
    bundle: Bundle, point: OperatingPoint, pictures: Path, columns: int, seed: int, severity: float | None = None
) -> np.ndarray:
    """One row per class, `columns` times good | mask | synthetic around the defect: BGR, uint8."""
    engine = open_engine(bundle.file(bundle.manifest.variants[point.variant]["denoiser"]))
    names = sorted(p.name for p in pictures.iterdir() if p.suffix.lower() in PICTURES)
    rows = []
    for k, defect in enumerate(bundle.manifest.classes):
        row = []
        for n in range(columns):
            name = names[(n * 7 + k * 3) % len(names)]
            row.append(_triple(bundle, point, engine, pictures, name, defect, seed + 100 * k + n, severity))
        strip = np.full((16, columns * 3 * TILE, 3), 255, np.uint8)
        cv2.putText(strip, defect, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        rows += [strip, np.hstack(row)]
    engine.close()
    return np.vstack(rows)


def _triple(
    bundle: Bundle, point: OperatingPoint, engine: Engine, pictures: Path, name: str, defect: str, seed: int,
    severity: float | None,
) -> np.ndarray:  # fmt: skip
    """One item: the good picture, the mask and the synthetic picture, cut around the defect, side by side."""
    site = Site((pictures,), models={KIND.name: (bundle,)})
    params = {"image": {"path": name}, "defect": defect, "gate": "off"} | ({} if severity is None else {"severity": severity})
    with tempfile.TemporaryDirectory() as folder:
        task = Task("sheet", seed, Path(folder), bundle, point, lambda _: engine, site)
        item = play(KIND, params, task).output["items"][0]
        good, mask, made = (
            cv2.imread(str(p)) for p in (pictures / name, Path(folder, item["mask"]), Path(folder, item["image"]))
        )
    x, y, w, h = item["box"]
    side = max(72.0, 1.6 * max(w, h))
    zoom = TILE / side
    at = np.array([[zoom, 0, TILE / 2 - (x + w / 2) * zoom], [0, zoom, TILE / 2 - (y + h / 2) * zoom]], np.float32)
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    tiles = [cv2.warpAffine(np.asarray(p, np.uint8), at, (TILE, TILE), flags=how) for p in (good, mask, made)]
    tiles[-1][:, -1] = 255
    return np.hstack(tiles)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.defects_sheet", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "surface-defects", help="default: the one that ships")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--images", type=Path, help="folder of good pictures (default: procedural parts)")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--severity", type=float, help="0 to 1 (default: each item its own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--point", type=int, default=0, help="which operating point of model.yaml, from 0 (default 0)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            for n in range(12):
                cv2.imwrite(str(Path(folder, f"part{n:02d}.png")), surface.frame(n, n))
        bundle = read_bundle(args.bundle)
        points = bundle.manifest.operating_points
        if not 0 <= args.point < len(points):
            print(f"error: --point {args.point}: {args.bundle} has points 0 to {len(points) - 1}", file=sys.stderr)
            return 1
        picture = sheet(bundle, points[args.point], args.images or Path(folder), args.columns, args.seed, args.severity)
    if not cv2.imwrite(str(args.out), picture):
        print(f"error: {args.out}: cannot be written", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
