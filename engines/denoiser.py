"""Turns what a network predicts (eps, v or x0) into the one shape that samplers know: (x, sigma) -> denoised.

Outside x is in the variance-exploding scale, x = clean + sigma * noise; the network sees the variance-preserving
x / sqrt(1 + sigma^2) and the time. Conversions: Salimans & Ho 2022, section 4 and appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Network = Callable[[Any, float], Any]
"""(x in the variance-preserving scale, sigma) -> raw prediction, same shape as x."""
Denoiser = Callable[[Any, float], Any]
"""(x, sigma) -> denoised, all in the variance-exploding scale."""


def from_eps(network: Network) -> Denoiser:
    """x0 = x - sigma * eps."""
    return lambda x, sigma: x - sigma * network(x / math.sqrt(1 + sigma * sigma), sigma)


def from_v(network: Network) -> Denoiser:
    """x0 = alpha * x_vp - sigma_vp * v, with alpha = 1 / sqrt(1 + sigma^2) and sigma_vp = sigma * alpha."""

    def denoise(x: Any, sigma: float) -> Any:
        alpha = 1 / math.sqrt(1 + sigma * sigma)
        x_vp = x * alpha
        return alpha * x_vp - (sigma * alpha) * network(x_vp, sigma)

    return denoise


def from_x0(network: Network) -> Denoiser:
    """The network says the clean data itself."""
    return lambda x, sigma: network(x / math.sqrt(1 + sigma * sigma), sigma)


PREDICTIONS: dict[str, Callable[[Network], Denoiser]] = {"eps": from_eps, "v": from_v, "x0": from_x0}


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of strength `scale`, at noise levels low < sigma <= high; 1 is none.

    Ho & Salimans 2022, in their later form uncond + scale * (cond - uncond); the interval from Kynkaanniemi et al. 2024.
    """

    scale: float
    low: float = 0.0
    high: float = math.inf


def guided(conditional: Denoiser, unconditional: Denoiser, guidance: Guidance) -> Denoiser:
    """Both denoisers in one; outside of the interval the unconditional network is not called."""

    def denoise(x: Any, sigma: float) -> Any:
        denoised = conditional(x, sigma)
        if guidance.scale == 1 or not guidance.low < sigma <= guidance.high:
            return denoised
        without = unconditional(x, sigma)
        return without + guidance.scale * (denoised - without)

    return denoise
