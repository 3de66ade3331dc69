"""Noise schedules: descending sigmas that end in 0, in the variance-exploding scale x = clean + sigma * noise.

A schedule is only the list of noise levels; what the network is told about them (`angle`) stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(steps: int, t_max: float = 0.995) -> list[float]:
    """alpha = cos(pi t / 2), so sigma = tan(pi t / 2), t uniform from `t_max` to 0 (Salimans & Ho 2022, section 2)."""
    return [math.tan(math.pi / 2 * t_max * (1 - i / steps)) for i in range(steps)] + [0.0]


def karras(steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0, rho: float = 7.0) -> list[float]:
    """Karras et al. 2022, equation 5."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


def linear(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02, trained: int = 1000) -> list[float]:
    """Ho et al. 2020, section 4: betas linear over `trained` steps; `steps` of them, evenly spaced from the last."""
    log_alpha, sigmas = 0.0, []
    for i in range(trained):
        log_alpha += math.log1p(-(beta_start + (beta_end - beta_start) * i / (trained - 1)))
        sigmas.append(math.sqrt(math.expm1(-log_alpha)))
    return [sigmas[round((trained - 1) * (1 - i / steps))] for i in range(steps)] + [0.0]


SCHEDULES: dict[str, Callable[..., list[float]]] = {"cosine": cosine, "karras": karras, "linear": linear}


def angle(sigma: float) -> float:
    """The time t in 0..1 that our networks are told: sigma = tan(pi t / 2)."""
    return math.atan(sigma) * 2 / math.pi
