"""One step down the noise schedule per call, one small pure function per method. Imports no array library.

Every sampler has one shape: (denoise, x, sigma, sigma_next, memory, noise) -> (x_next, memory). x is (batch, ...) in the
variance-exploding scale, float32, numpy or a device array; sigma > sigma_next >= 0 are Python floats; memory is what a
multistep method carries to its next step (None at the start), so that a checkpoint is x, memory and a step number; noise
is unit noise for stochastic methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .denoiser import Denoiser

Memory = Any
Sampler = Callable[[Denoiser, Any, float, float, Memory, Any], "tuple[Any, Memory]"]


def ddim(
    denoise: Denoiser, x: Any, sigma: float, sigma_next: float, memory: Memory = None, noise: Any = None
) -> tuple[Any, Memory]:
    """DDIM with eta = 0 (Song et al. 2021, equation 12); in this scale it is an Euler step of the flow."""
    ratio = sigma_next / sigma
    return ratio * x + (1 - ratio) * denoise(x, sigma), None


def dpmpp_2m(
    denoise: Denoiser, x: Any, sigma: float, sigma_next: float, memory: Memory = None, noise: Any = None
) -> tuple[Any, Memory]:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), first order at both ends; memory: (sigma, denoised) of the last step."""
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return denoised, None
    h, slope = math.log(sigma / sigma_next), denoised
    if memory is not None:
        sigma_before, denoised_before = memory
        r = math.log(sigma_before / sigma) / h
        slope = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * denoised_before
    return (sigma_next / sigma) * x - math.expm1(-h) * slope, (sigma, denoised)


def gaussian_exact(
    denoise: Denoiser, x: Any, sigma: float, sigma_next: float, memory: Memory = None, noise: Any = None
) -> tuple[Any, Memory]:
    """Exact for unit Gaussian data at any number of steps; only the network's difference from it is carried as in DDIM.

    For x0 ~ N(0, 1) the denoiser is x / (1 + sigma^2) and the flow keeps x / sqrt(1 + sigma^2) constant. DDIM with few
    steps shrinks that spread; here the Gaussian part moves along its own flow.
    """
    var, var_next = 1 + sigma * sigma, 1 + sigma_next * sigma_next
    difference = denoise(x, sigma) - x / var
    return math.sqrt(var_next / var) * x + (1 - sigma_next / sigma) * difference, None


SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "gaussian_exact": gaussian_exact}
