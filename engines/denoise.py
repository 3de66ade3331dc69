"""The loop: steps through a noise schedule and yields a checkpoint after every step, where whoever drives it may stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .denoiser import Guidance
from .engine import Bound
from .plan import NOISE, Call, Mix, Plan, X, plan, preserving
from .samplers import Memory, Sampler
from .schedules import angle


@dataclass(frozen=True)
class Checkpoint:
    """All there is to know of a trajectory: `step` steps are done, x (batch, ...) is where it stands, memory the sampler's.

    x is in the network's scale, variance-preserving: x / sqrt(1 + sigma^2). Its arrays, and those of memory, are the
    loop's own and overwritten by the next step: copy what you keep. `np.asarray` brings them here from a device. Only the
    last checkpoint's x, the result, is the receiver's.
    """

    step: int
    x: Any
    memory: Memory = None


@dataclass(frozen=True)
class Known:
    """A region whose clean values are given: there x is `values` + sigma * `noise` after every step, so at the end `values`.

    Inpainting by replacement (Song et al. 2021, appendix I.2), with one noise for the whole trajectory, so that what is
    known lies on one path of the flow. values, noise (batch, ...) as x; where: the same shape, not 0 = known.
    """

    values: np.ndarray
    noise: np.ndarray
    where: np.ndarray


def start(noise: np.ndarray, sigmas: Sequence[float]) -> Checkpoint:
    """The beginning of a trajectory from unit noise (batch, ...)."""
    return Checkpoint(0, noise * (sigmas[0] * preserving(sigmas[0])))


def denoise(
    bound: Bound,
    sampler: Sampler,
    prediction: str,
    sigmas: Sequence[float],
    at: Checkpoint,
    noise: Callable[[int], np.ndarray] | None = None,
    guidance: Guidance | None = None,
    known: Known | None = None,
    time: Callable[[float], float] = angle,
) -> Iterator[Checkpoint]:
    """From `at` to the end of `sigmas` (descending, last 0), one checkpoint per step; the last one's x is the result.

    noise(step) gives unit noise for the step that ends as checkpoint `step`; asked only by methods that use it. Going on
    from any checkpoint gives the same bytes as never having stopped. `time` is what the network is told of sigma. With
    guidance, `bound` has two conditions, the second without what guides.
    """
    todo = plan(sampler, prediction, tuple(sigmas), guidance)
    key = todo, time, known is not None
    if key not in bound.programs:
        bound.programs[key] = _program(bound, todo, time, known is not None)
    steps, slots = bound.programs[key], bound.slots
    bound.store(slots[X], at.x)
    if at.step:
        for array, kept in zip(steps[at.step - 1].memory or (), at.memory or ()):
            bound.store(array, kept)
    if known is not None:
        for array, given in zip(slots[todo.slots :], (known.values, known.noise, known.where)):
            bound.store(array, given)
    for step in steps[at.step :]:
        if step.noisy:
            if noise is None:
                raise ValueError("this sampler is stochastic: it needs noise")
            bound.store(slots[NOISE], noise(step.number))
        for act in step.acts:
            act()
        yield Checkpoint(step.number, np.array(slots[X]) if step is steps[-1] else slots[X], step.memory)


@dataclass(frozen=True)
class _Ready:
    """A step on certain arrays: what to call, and where that leaves what the sampler remembers."""

    number: int
    noisy: bool
    acts: tuple[Callable[[], None], ...]
    memory: Memory


def _program(bound: Bound, todo: Plan, time: Callable[[float], float], known: bool) -> list[_Ready]:
    """Every step as calls that are ready to go; made once for a plan, kept with the buffers that they write to."""
    for slot in range(len(bound.slots), todo.slots + 3 * known):
        bound.slots.append(None if slot == NOISE else bound.array())
    if bound.slots[NOISE] is None and any(step.noisy for step in todo.steps):
        bound.slots[NOISE] = bound.array()

    def ready(action: Mix | Call) -> Callable[[], None]:
        if isinstance(action, Call):
            return partial(bound.call, action.condition, time(action.sigma))
        outs, ins = ([bound.slots[slot] for slot in slots] for slots in (action.outs, action.ins))
        return bound.prepare(outs, action.weights, ins)

    def put_back(sigma: float) -> Callable[[], None]:
        values, noise, where = bound.slots[todo.slots : todo.slots + 3]
        weights = preserving(sigma), sigma * preserving(sigma)
        return bound.prepare([bound.slots[X]], [weights], [values, noise], where)

    steps = []
    for number, step in enumerate(todo.steps, 1):
        acts = (*map(ready, step.actions), *([put_back(todo.sigmas[number])] if known else []))
        steps.append(_Ready(number, step.noisy, acts, tuple(bound.slots[slot] for slot in step.memory) or None))
    return steps
