"""What one synthetic defect costs, from the good picture to both PNG files, at each operating point of a bundle:

    OMP_NUM_THREADS=1 python bench/defect_speed.py [--bundle DIR] [--images DIR] [--count 40]

CPU milliseconds per picture with its mask: the least of three runs of jobs with --count pictures in all, any class, one
thread. Peak memory is that of a process that runs the first point alone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from denoised.demo import surface
from denoised.engines.bundle import SHIPPED, Bundle, OperatingPoint, read_bundle
from denoised.engines.engine import Engine, open_engine
from denoised.plugins.defect_synthesis.kind import KIND
from denoised.plugins.kind import Site, Task
from denoised.plugins.play import play

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


def job(bundle: Bundle, point: OperatingPoint, engine: Engine, pictures: Path, count: int) -> float:
    """CPU seconds of a job of `count` pictures."""
    site = Site((pictures,), models={KIND.name: (bundle,)})
    names = sorted(p.name for p in pictures.iterdir() if p.suffix.lower() in PICTURES)
    began = time.process_time()
    for n in range(4):
        with tempfile.TemporaryDirectory() as folder:
            task = Task("speed", n, Path(folder), bundle, point, lambda _: engine, site)
            play(KIND, {"image": {"path": names[n % len(names)]}, "count": count // 4}, task)
    return time.process_time() - began


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "surface-defects")
    parser.add_argument("--images", type=Path, help="folder of good pictures (default: procedural parts of 640 x 480)")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--peak", action="store_true", help="only run the first point once and print the peak memory")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = read_bundle(args.bundle)
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            for n in range(4):
                cv2.imwrite(str(Path(folder, f"part{n}.png")), surface.frame(n, n))
        pictures = args.images or Path(folder)
        points = bundle.manifest.operating_points[: 1 if args.peak else None]
        for point in points:
            engine = open_engine(bundle.file(bundle.manifest.variants[point.variant]["denoiser"]))
            if args.peak:
                job(bundle, point, engine, pictures, 8)
                print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB peak")
                return 0
            least = min(job(bundle, point, engine, pictures, args.count) for _ in range(3)) / (args.count // 4 * 4)
            print(f"| {point.variant} | {point.sampler} | {point.steps} | {least * 1e3:.1f} ms |", flush=True)
            engine.close()
        command = [sys.executable, __file__, "--peak", "--bundle", str(args.bundle), "--images", str(pictures)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
