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
from denoised.engines.schedules import SCHEDULES
from denoised.plugins.kind import Site, Task
from denoised.plugins.play import solve, walk
from denoised.plugins.sensor_imputation.gaussian import LENGTH, calibrate, condition, standardise
from denoised.plugins.sensor_imputation.kind import KIND
from denoised.plugins.sensor_imputation.params import ImputationParams

BUNDLE = read_bundle(SHIPPED / "plant-imputer")
NETWORKS = {name: open_engine(BUNDLE.file(file)) for name, file in BUNDLE.manifest.variants["fp32"].items()}


def job(params: ImputationParams, steps: int) -> None:
    """One job from its params to its output."""
    point = OperatingPoint(sampler="gaussian_exact", steps=steps, batch=8)
    work = KIND.work(params, Task("speed", 1, Path("."), BUNDLE, point, NETWORKS.__getitem__, Site()))
    sigmas = SCHEDULES[BUNDLE.manifest.schedule](steps)
    try:
        problem = next(work)
        while True:
            problem = work.send(solve(walk(problem, NETWORKS["denoiser"], sigmas, point.sampler, "v")))
    except StopIteration:
        return


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


def main() -> None:
    x = plant(192, 10)
    live = x.tolist()
    for row in live[-3:]:
        row[2] = row[5] = None
    params = read({"tags": [f"s{k}" for k in range(10)], "values": live}, ImputationParams)
    for steps in (1, 2):
        took = cpu_ms(partial(job, params, steps))
        print(f"live group, 10 tags x 192 rows, gaps in the last 3 rows, {steps} steps: {took:6.1f} ms")
    past, holed = plant(2000, 7), plant(LENGTH, 7)
    holed[np.random.default_rng(1).random(holed.shape) < 0.5] = np.nan
    calibration = calibrate([past])
    z = standardise(holed, calibration)
    print(f"calibrate from 2000 rows of 7 tags: {cpu_ms(lambda: calibrate([past])):6.1f} ms")
    prior = calibration.prior()
    condition(prior, z)
    print(f"condition a window of 7 tags, half missing: {cpu_ms(lambda: condition(prior, z)):6.1f} ms")
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
