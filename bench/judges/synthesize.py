"""Synthetic defects for an outside judge: N pictures per class with masks, through the very code of the job kind.

    python bench/judges/synthesize.py --good DIR --shots FILE.csv --images DIR --seed S --count N --out DIR [--bundle PATH]

Every picture is a job of its own on one of the good pictures in turn. Without --bundle a model is trained first, from the
good pictures and the real defects that --shots lists (column `image`, found under --images) alone; it stays in OUT/.bundle.
The weights that it begins with, training/defects_base.npz, have seen no real defect.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from denoised.engines.bundle import OperatingPoint, read_bundle
from denoised.engines.engine import open_engine
from denoised.engines.noise import generator
from denoised.plugins.defect_synthesis.kind import KIND
from denoised.plugins.defect_synthesis.params import GATES
from denoised.plugins.kind import Site, Task
from denoised.plugins.play import play

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--good", type=Path, required=True, help="folder of good pictures, to draw on")
    parser.add_argument("--shots", type=Path, help="CSV of the real defects to train from (without --bundle)")
    parser.add_argument("--images", type=Path, help="folder that the CSV's paths start from (without --bundle)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100, help="pictures per class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="a trained bundle; absent: train one first")
    parser.add_argument("--minutes", type=float, default=3, help="CPU minutes of training without --bundle (default 3)")
    parser.add_argument("--classes", help="only these, with commas between (default: all of the bundle)")
    parser.add_argument("--gate", choices=GATES, default="on", help="the acceptance gate of the job kind (default on)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the bundle's own)")
    args = parser.parse_args(argv)
    folder = args.bundle
    if folder is None:
        if not args.shots or not args.images:
            parser.error("without --bundle, --shots and --images are needed to train one")
        from denoised.training.defects import About, train

        folder = args.out / ".bundle"
        train(args.images, args.good, folder, args.minutes, About("few-shot"), args.shots, args.seed)
    bundle = read_bundle(folder)
    point = bundle.manifest.operating_points[0]
    if args.steps:
        point = OperatingPoint(point.variant, point.sampler, args.steps, point.batch)
    engines = {name: open_engine(bundle.file(file)) for name, file in bundle.manifest.variants[point.variant].items()}
    site = Site((args.good,), models={KIND.name: (bundle,)})
    origin = {"model": bundle.manifest.name, "model_version": bundle.manifest.version, "model_sha256": bundle.sha256}
    good = sorted(p.name for p in args.good.iterdir() if p.suffix.lower() in PICTURES)
    wanted = args.classes.split(",") if args.classes else bundle.manifest.classes
    for k, defect in enumerate(bundle.manifest.classes):
        if defect not in wanted:
            continue
        (args.out / defect).mkdir(parents=True, exist_ok=True)
        order = generator(args.seed, k, 0).permutation(len(good))
        for n in range(args.count):
            path = good[int(order[n % len(good)])]
            seed = int(generator(args.seed, k, n + 1).integers(1 << 53))
            with tempfile.TemporaryDirectory() as scratch:
                task = Task(f"judge-{seed}", seed, Path(scratch), bundle, point, engines.__getitem__, site, origin=origin)
                item = play(KIND, {"image": {"path": path}, "defect": defect, "gate": args.gate}, task).output["items"][0]
                stem = f"{defect}_{n:04d}"
                (args.out / defect / f"{stem}.png").write_bytes((Path(scratch) / item["image"]).read_bytes())
                (args.out / defect / f"{stem}_mask.png").write_bytes((Path(scratch) / item["mask"]).read_bytes())
        print(f"{defect}: {args.count} pictures", flush=True)
    for engine in engines.values():
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
