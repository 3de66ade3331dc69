"""The loop: steps through a noise schedule and yields a checkpoint after every step, where whoever drives it may stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .denoiser import Denoiser
from .samplers import Memory, Sampler


@dataclass(frozen=True)
class Checkpoint:
    """All there is to know of a trajectory: `step` steps are done, x (batch, ...) is where it stands, memory the sampler's."""

    step: int
    x: Any
    memory: Memory = None


def start(noise: Any, sigmas: Sequence[float]) -> Checkpoint:
    """The beginning of a trajectory from unit noise (batch, ...)."""
    return Checkpoint(0, noise * sigmas[0])


def denoise(
    sampler: Sampler,
    denoiser: Denoiser,
    sigmas: Sequence[float],
    at: Checkpoint,
    noise: Callable[[int], Any] = lambda step: None,
) -> Iterator[Checkpoint]:
    """From `at` to the end of `sigmas` (descending, last 0), one checkpoint per step; the last one's x is the result.

    noise(step) gives unit noise for the step that ends as checkpoint `step`, for methods that use it. Going on from any
    checkpoint gives the same bytes as never having stopped.
    """
    for i in range(at.step, len(sigmas) - 1):
        x, memory = sampler(denoiser, at.x, sigmas[i], sigmas[i + 1], at.memory, noise(i + 1))
        at = Checkpoint(i + 1, x, memory)
        yield at
