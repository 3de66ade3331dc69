"""Plays one job in this process, as the worker does but without stopping on the way: for judges, benches and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config import typed
from ..engines import noise
from ..engines.denoise import denoise, start
from ..engines.denoiser import PREDICTIONS
from ..engines.engine import Engine
from ..engines.samplers import SAMPLERS
from ..engines.schedules import SCHEDULES, angle
from .kind import JobKind, Outcome, Problem, Task


def play(kind: JobKind, params: Mapping[str, Any], task: Task) -> Outcome:
    """The outcome of a request's `params`, artifacts in the task's folder; refused as the daemon would."""
    request: Any = typed.read(params, kind.params)
    kind.check(request, task.site)
    work = kind.work(request, task)
    try:
        problem = next(work)
        while True:
            manifest, point = task.bundle.manifest, task.point
            sigmas = SCHEDULES[manifest.schedule](point.steps, **manifest.schedule_args)
            problem = work.send(solve(problem, task.network("denoiser"), sigmas, point.sampler, manifest.prediction, task.seed))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def solve(
    problem: Problem, engine: Engine, sigmas: Sequence[float], sampler: str, prediction: str, seed: int = 0
) -> np.ndarray:
    """One problem from unit noise to its result, same shape as its x."""
    output = next(iter(engine.outputs))

    def network(x: np.ndarray, sigma: float) -> np.ndarray:
        return engine.run({"x": x, "t": np.full(len(x), angle(sigma), np.float32), **problem.cond})[output]

    def step_noise(step: int) -> np.ndarray:
        return noise.batch(seed, problem.items, step, problem.x.shape[1:])

    reached = start(problem.x, sigmas)
    for checkpoint in denoise(SAMPLERS[sampler], PREDICTIONS[prediction](network), sigmas, reached, step_noise):
        reached = checkpoint
    x: np.ndarray = reached.x
    return x
