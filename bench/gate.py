"""What the acceptance gate costs beside the sampling, one thread, the shipped model, on procedural parts.

    python bench/gate.py [--count N] [--rounds N] [--steps N]

CPU milliseconds per draw, least of the rounds, of jobs with the gate on: the network's trajectories, the gate (its view of
the defect, its measures, its detector), and the whole job with PNG files. Redrawing costs what drawing costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from denoised.config import typed
from denoised.demo import surface
from denoised.engines.bundle import SHIPPED, OperatingPoint, read_bundle
from denoised.engines.engine import open_engine
from denoised.plugins.defect_synthesis import gate, work
from denoised.plugins.defect_synthesis.kind import KIND
from denoised.plugins.kind import Site, Task
from denoised.plugins.play import drive, solve, trajectory


class Clock:
    """CPU seconds spent in a function and how often it was called."""

    def __init__(self, function: Callable[..., Any]):
        self._function, self.spent, self.calls = function, 0.0, 0

    def __call__(self, *args: Any) -> Any:
        """As the function."""
        began = time.process_time()
        try:
            return self._function(*args)
        finally:
            self.spent, self.calls = self.spent + time.process_time() - began, self.calls + 1


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=24, help="items of a job (default 24)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's own)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = read_bundle(SHIPPED / "surface-defects")
    point = bundle.manifest.operating_points[0]
    if args.steps:
        point = OperatingPoint(point.variant, point.sampler, args.steps, point.batch)
    engines = {name: open_engine(bundle.file(file)) for name, file in bundle.manifest.variants[point.variant].items()}
    view_of, judge = work._view, gate.Gate.judge
    print(f"{'class':10} {'draws':>6} {'sampling':>9} {'gate':>6} {'whole':>7}  CPU ms per draw; gate of sampling", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        cv2.imwrite(f"{scratch}/part.png", surface.frame(0, 0))
        site = Site((Path(scratch),), models={KIND.name: (bundle,)})
        for defect in bundle.manifest.classes:
            params: Any = typed.read({"image": {"path": "part.png"}, "defect": defect, "count": args.count}, KIND.params)
            rows = []
            for turn in range(args.rounds):
                folder = Path(scratch, f"{defect}{turn}")
                folder.mkdir()
                task = Task("bench", 1, folder, bundle, point, engines.__getitem__, site)
                sampling = Clock(lambda problem, task=task: solve(trajectory(problem, task)))
                seeing, judging = Clock(view_of), Clock(judge)
                work._view = seeing  # type: ignore[assignment]
                gate.Gate.judge = lambda *a, judging=judging: judging(*a)  # type: ignore[method-assign]
                whole = Clock(lambda task=task, sampling=sampling, params=params: drive(KIND.work(params, task), sampling))
                whole()
                rows.append((sampling.spent, seeing.spent + judging.spent, whole.spent))
            ms = [min(column) / judging.calls * 1e3 for column in zip(*rows)]
            print(f"{defect:10} {judging.calls:6} {ms[0]:9.1f} {ms[1]:6.2f} {ms[2]:7.1f}  {ms[1] / ms[0]:.1%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
