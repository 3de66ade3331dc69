"""What one sensor-imputation job costs in CPU time, and what each part of it takes.

    OMP_NUM_THREADS=1 .venv/bin/python bench/impute_speed.py

The least of several runs in process CPU time, one thread: what the work takes where nothing else disturbs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from denoised.config.typed import read
from denoised.engines.bundle import SHIPPED, OperatingPoint, read_bundle
from denoised.engines.engine import open_engine
from denoised.plugins.kind import Site, Task
from denoised.plugins.play import drive, solve, trajectory
from denoised.plugins.sensor_imputation.gaussian import LENGTH, calibrate, standardise
from denoised.plugins.sensor_imputation.kind import KIND
from denoised.plugins.sensor_imputation.params import ImputationParams
from denoised.plugins.sensor_imputation.quantiles import LEVELS
from denoised.plugins.sensor_imputation.series import Way, impute
from denoised.plugins.sensor_imputation.site import learn
from denoised.plugins.sensor_imputation.stored import Part

BUNDLE = read_bundle(SHIPPED / "plant-imputer")
NETWORKS = {name: open_engine(BUNDLE.file(file)) for name, file in BUNDLE.manifest.variants["fp32"].items()}


def job(params: ImputationParams, point: OperatingPoint) -> None:
    """One job from its params to its output."""
    task = Task("speed", 1, Path("."), BUNDLE, point, NETWORKS.__getitem__, Site())
    drive(KIND.work(params, task), lambda problem: solve(trajectory(problem, task)))


def window(part: Part, z: np.ndarray, point: OperatingPoint) -> None:
    """One window whose tags were calibrated before, 32 samples where the point draws any."""
    way = Way(NETWORKS["encoder"] if BUNDLE.manifest.variants[point.variant] else None, () if point.steps else LEVELS, 32)
    task = Task("speed", 1, Path("."), BUNDLE, point, NETWORKS.__getitem__, Site())
    response = part.network if way.encoder else part.gaussian
    work = impute(part.calibration, response, z, way, 1, 0, lambda at, answer: None)
    drive(work, lambda problem: solve(trajectory(problem, task)))


def cpu_ms(what: Callable[[], object], runs: int = 15) -> float:
    """The least CPU time of several runs."""
    took = []
    for _ in range(runs):
        began = time.process_time()
        what()
        took.append(time.process_time() - began)
    return min(took) * 1e3


def plant(rows: int, tags: int) -> np.ndarray:
    """Correlated random walks and noise (rows, tags)."""
    rng = np.random.default_rng(0)
    return np.cumsum(rng.standard_normal((rows, 3)), 0) @ rng.standard_normal((3, tags)) + rng.standard_normal((rows, tags))


def words(point: OperatingPoint) -> str:
    """What a rung of the ladder is called."""
    if point.steps:
        return f"{point.steps} steps"
    return "quantile head" if BUNDLE.manifest.variants[point.variant] else "closed form"


def main() -> None:
    x = plant(192, 10)
    live = x.tolist()
    for row in live[-3:]:
        row[2] = row[5] = None
    params = read({"tags": [f"s{k}" for k in range(10)], "values": live}, ImputationParams)
    points = [p for p in BUNDLE.manifest.operating_points if p.steps < 4]
    for point in points:
        took = cpu_ms(partial(job, params, point))
        print(f"live group, 10 tags x 192 rows, gaps in the last 3 rows, {words(point)}: {took:6.1f} ms")
    past, holed = plant(2000, 7), plant(LENGTH, 7)
    holed[np.random.default_rng(1).random(holed.shape) < 0.5] = np.nan
    part = learn([past], NETWORKS["encoder"])[0]
    z = standardise(holed, part.calibration)
    print(f"calibrate from 2000 rows of 7 tags: {cpu_ms(lambda: calibrate([past])):6.1f} ms")
    print(f"learn from 2000 rows of 7 tags: {cpu_ms(lambda: learn([past], NETWORKS['encoder']), 3):6.1f} ms")
    for point in points:
        print(f"a window of 7 tags, half missing, {words(point)}: {cpu_ms(partial(window, part, z, point)):6.1f} ms")
    rng = np.random.default_rng(2)
    sizes = {"windows": 1, "samples": 32, "tags": 7}
    feeds = {}
    for engine in NETWORKS.values():
        for name, spec in engine.inputs.items():
            shape = [d if isinstance(d, int) else sizes[d] for d in spec.shape]
            feeds[name] = rng.random(shape, dtype=np.float32)
    for name, engine in NETWORKS.items():
        took = cpu_ms(partial(engine.run, {k: feeds[k] for k in engine.inputs}))
        print(f"{name}, 7 tags, 32 samples, one call: {took:6.1f} ms")


if __name__ == "__main__":
    main()
