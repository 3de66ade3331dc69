"""Noise schedules: descending sigmas that end in 0, in the variance-exploding scale x = clean + sigma * noise.

A schedule is only the list of noise levels; what the network is told about them (`angle`) stands beside it. The discrete
ones are those of networks trained on numbered noise levels, 1000 by custom: betas give the noise level of each number
(`sigmas_of`), a spacing picks the numbers that are stepped through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

Spacing = Callable[[int, int], Sequence[float]]
"""(steps, trained) -> that many of the numbers 0 ... trained - 1, descending; one between two is interpolated."""


def cosine(steps: int, t_max: float = 0.995) -> list[float]:
    """alpha = cos(pi t / 2), so sigma = tan(pi t / 2), t uniform from `t_max` to 0 (Salimans & Ho 2022, section 2)."""
    return [math.tan(math.pi / 2 * t_max * (1 - i / steps)) for i in range(steps)] + [0.0]


def karras(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022, equation 5 and Table 1."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def exponential(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> list[float]:
    """Uniform in log sigma: steps of equal size for exponential integrators (Lu et al. 2022, DPM-Solver, section 3.4)."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    return [math.exp(high + i / max(steps - 1, 1) * (low - high)) for i in range(steps)] + [0.0]


# --- where discrete schedules step: Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", Table 2


def linspace(steps: int, trained: int = 1000) -> Sequence[float]:
    """From the last number in equal strides that would end on 0, which is left out (as in Lu et al. 2022)."""
    return [round(i * ((trained - 1) / steps)) for i in range(steps, 0, -1)]


def linspace_to_0(steps: int, trained: int = 1000) -> Sequence[float]:
    """From the last number to 0, both included; between numbers the noise level is interpolated."""
    return [i * ((trained - 1) / (steps - 1)) for i in range(steps - 1, -1, -1)] if steps > 1 else [trained - 1]


def leading(steps: int, trained: int = 1000) -> Sequence[float]:
    """Multiples of a whole stride down to 0 (Ho et al. 2020, Song et al. 2021)."""
    return [i * (trained // steps) for i in reversed(range(steps))]


def distilled(steps: int, trained: int = 1000, distilled_over: int = 50) -> Sequence[float]:
    """Of the numbers that a latent consistency model was distilled on, `steps` evenly spread (Luo et al. 2023)."""
    if steps > distilled_over:
        raise ValueError(f"expected at most {distilled_over} steps, as many as were distilled on, found {steps}")
    taught = [n * (trained // distilled_over) - 1 for n in range(distilled_over, 0, -1)]
    return [taught[math.floor(i * len(taught) / steps)] for i in range(steps)]


# --- discrete schedules


def linear(
    steps: int, beta_start: float = 1e-4, beta_end: float = 0.02, trained: int = 1000, spacing: Spacing = linspace
) -> list[float]:
    """Ho et al. 2020, section 4: betas linear over `trained` steps."""
    betas = [beta_start + (beta_end - beta_start) * i / (trained - 1) for i in range(int(trained))]
    return _spaced(betas, steps, spacing)


def scaled_linear(
    steps: int, beta_start: float = 0.00085, beta_end: float = 0.012, trained: int = 1000, spacing: Spacing = linspace
) -> list[float]:
    """Rombach et al. 2022 (latent diffusion): the square root of beta is linear."""
    low, high = math.sqrt(beta_start), math.sqrt(beta_end)
    return _spaced([(low + (high - low) * i / (trained - 1)) ** 2 for i in range(int(trained))], steps, spacing)


def sigmoid(
    steps: int, beta_start: float = 1e-4, beta_end: float = 0.02, trained: int = 1000, spacing: Spacing = linspace
) -> list[float]:
    """Xu et al. 2022 (GeoDiff): beta follows a sigmoid from -6 to 6."""
    rise = [1 / (1 + math.exp(6 - 12 * i / (trained - 1))) for i in range(int(trained))]
    return _spaced([beta_start + (beta_end - beta_start) * r for r in rise], steps, spacing)


def discrete_cosine(steps: int, trained: int = 1000, spacing: Spacing = linspace) -> list[float]:
    """Nichol & Dhariwal 2021, equation 17, betas at most 0.999."""

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - alpha_bar((i + 1) / trained) / alpha_bar(i / trained), 0.999) for i in range(int(trained))]
    return _spaced(betas, steps, spacing)


SCHEDULES: dict[str, Callable[..., list[float]]] = {
    "cosine": cosine, "karras": karras, "exponential": exponential, "linear": linear, "scaled-linear": scaled_linear,
    "sigmoid": sigmoid, "discrete-cosine": discrete_cosine,
}  # fmt: skip


@cache
def schedule(name: str, steps: int, **args: float) -> tuple[float, ...]:
    """The noise levels of the schedule `name`; worked out once for the same question."""
    return tuple(SCHEDULES[name](steps, **args))


def sigmas_of(betas: Sequence[float]) -> list[float]:
    """The noise level after each of the forward steps: sigma^2 = (1 - alpha_bar) / alpha_bar."""
    log_alpha_bar, sigmas = 0.0, []
    for beta in betas:
        log_alpha_bar += math.log1p(-beta)
        sigmas.append(math.sqrt(math.expm1(-log_alpha_bar)))
    return sigmas


def _spaced(betas: Sequence[float], steps: int, spacing: Spacing) -> list[float]:
    sigmas, out = sigmas_of(betas), []
    for number in spacing(steps, len(betas)):
        low = min(math.floor(number), len(sigmas) - 2)
        out.append(sigmas[low] + (number - low) * (sigmas[low + 1] - sigmas[low]))
    return [*out, 0.0]


def angle(sigma: float) -> float:
    """The time t in 0..1 that our networks are told: sigma = tan(pi t / 2)."""
    return math.atan(sigma) * 2 / math.pi
