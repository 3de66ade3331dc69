"""Plays a job: drives a kind's generator through the denoising loop. The worker stops between the steps; judges do not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..config import typed
from ..engines import noise
from ..engines.denoise import Checkpoint, denoise, start
from ..engines.denoiser import Guidance
from ..engines.engine import Engine, EngineError
from ..engines.samplers import Sampler, sampler
from ..engines.schedules import schedule
from .kind import JobKind, Outcome, Problem, Task

T = TypeVar("T")


def play(kind: JobKind, params: Mapping[str, Any], task: Task) -> Outcome:
    """The outcome of a request's `params`, artifacts in the task's folder; refused as the daemon would."""
    request: Any = typed.read(params, kind.params)
    kind.check(request, task.site)
    return drive(kind.work(request, task), lambda problem: solve(trajectory(problem, task)))


def drive(work: Generator[Problem, np.ndarray, T], solve: Callable[[Problem], np.ndarray]) -> T:
    """Hands each problem that `work` yields to `solve`, and its result back, up to what it returns."""
    try:
        problem = next(work)
        while True:
            problem = work.send(solve(problem))
    except StopIteration as end:
        outcome: T = end.value
        return outcome
    finally:
        work.close()


def trajectory(problem: Problem, task: Task, at: Checkpoint | None = None) -> Iterator[Checkpoint]:
    """Every checkpoint of a problem at the task's operating point, from `at` on or from its start (step 0)."""
    manifest, point = task.bundle.manifest, task.point
    if not point.steps:
        return iter((Checkpoint(0, problem.x),))
    sigmas = schedule(manifest.schedule, point.steps, **manifest.schedule_args)
    method = sampler(point.sampler, **point.sampler_args)
    return walk(problem, task.network("denoiser"), sigmas, method, manifest.prediction, task.seed, at, point.guidance)


def walk(
    problem: Problem,
    engine: Engine,
    sigmas: Sequence[float],
    method: Sampler | str,
    prediction: str,
    seed: int = 0,
    at: Checkpoint | None = None,
    guidance: Guidance | None = None,
) -> Iterator[Checkpoint]:
    """The same for any engine and schedule. The checkpoints' arrays are the loop's own but for the last x: see `Checkpoint`."""
    conditions = [problem.cond]
    if guidance is not None:
        if problem.without is None:
            raise EngineError("the operating point asks for guidance; problems of this kind have no inputs without a condition")
        conditions.append(problem.without)
    here = np.empty(problem.x.shape, np.float32)

    def step_noise(step: int) -> np.ndarray:
        return noise.batch(seed, problem.items, step, here.shape[1:], here)

    first = at or start(problem.x, sigmas)
    yield first
    bound = engine.bind(problem.x, conditions)
    try:
        chosen = sampler(method) if isinstance(method, str) else method
        yield from denoise(bound, chosen, prediction, sigmas, first, step_noise, guidance, problem.known)
    finally:
        bound.close()


def solve(checkpoints: Iterator[Checkpoint]) -> np.ndarray:
    """The result of a trajectory, same shape as its x."""
    *_, last = checkpoints
    x: np.ndarray = last.x
    return x
