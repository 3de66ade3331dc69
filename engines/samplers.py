"""One step down the noise schedule per call, one small pure function per method. Imports no array library.

Every sampler has one shape: (denoise, x, sigmas, i, memory, noise) -> (x_next, memory), for the step from sigmas[i] to
sigmas[i + 1]. x is in the variance-exploding scale, clean + sigma * noise; sigmas are Python floats that descend, the last
is 0; memory is a tuple of what a multistep method carries to its next step (None at the start), so that a checkpoint is x,
memory and a step number; noise is unit noise for stochastic methods. Choices of a method, such as eta, are keywords with a
default, which a model names in `sampler_args`.

x_next and memory must be linear in x, memory, noise and what `denoise` answers, with weights that come from the sigmas
alone: then `plan.py` can work out the steps before they run, for whatever arrays the engine has. So no clipping here, and
no arithmetic but sums and products with floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from .denoiser import Denoiser

Memory = Any
Sampler = Callable[[Denoiser, Any, Sequence[float], int, Memory, Any], "tuple[Any, Memory]"]
Sigmas = Sequence[float]


def euler(
    denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None,
    s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0,
) -> tuple[Any, Memory]:  # fmt: skip
    """The first-order step of Karras et al. 2022, Algorithm 2 without its lines 7 and 8; s_churn = 0 is an ODE step."""
    x, sigma = _churned(x, sigmas, i, noise, s_churn, s_tmin, s_tmax, s_noise)
    slope = (x - denoise(x, sigma)) / sigma
    return x + (sigmas[i + 1] - sigma) * slope, None


def heun(
    denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None,
    s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0,
) -> tuple[Any, Memory]:  # fmt: skip
    """One second-order step (Karras et al. 2022, Algorithm 2; with s_churn = 0 Algorithm 1).

    Calls the network twice, once where the next sigma is 0.
    """
    x, sigma = _churned(x, sigmas, i, noise, s_churn, s_tmin, s_tmax, s_noise)
    sigma_next = sigmas[i + 1]
    slope = (x - denoise(x, sigma)) / sigma
    guess = x + (sigma_next - sigma) * slope
    if sigma_next == 0:
        return guess, None
    slope_there = (guess - denoise(guess, sigma_next)) / sigma_next
    return x + (sigma_next - sigma) / 2 * (slope + slope_there), None


def ddim(
    denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None, eta: float = 0.0
) -> tuple[Any, Memory]:
    """DDIM (Song et al. 2021, equations 12 and 16). eta = 0 is an Euler step of the flow, eta = 1 the posterior of DDPM."""
    sigma, sigma_next = sigmas[i], sigmas[i + 1]
    up = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
    ratio = math.sqrt(sigma_next**2 - up**2) / sigma if eta else sigma_next / sigma
    x_next = ratio * x + (1 - ratio) * denoise(x, sigma)
    return (x_next + up * noise if up else x_next), None


def ddpm(denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None) -> tuple[Any, Memory]:
    """Ancestral sampling (Ho et al. 2020, equations 6 and 7, the smaller variance): the same as DDIM with eta = 1."""
    return ddim(denoise, x, sigmas, i, memory, noise, eta=1.0)


def dpmpp_2m(denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None) -> tuple[Any, Memory]:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), first order at both ends; memory: the last denoised x."""
    sigma, sigma_next = sigmas[i], sigmas[i + 1]
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return denoised, None
    h, slope = math.log(sigma / sigma_next), _extrapolated(denoised, sigmas, i, memory)
    return (sigma_next / sigma) * x - math.expm1(-h) * slope, (denoised,)


def dpmpp_2m_sde(
    denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None
) -> tuple[Any, Memory]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, equation 19, midpoint); memory: the last denoised x."""
    sigma, sigma_next = sigmas[i], sigmas[i + 1]
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return denoised, None
    h, slope = math.log(sigma / sigma_next), _extrapolated(denoised, sigmas, i, memory)
    decay = (sigma_next / sigma) * math.exp(-h)
    up = sigma_next * math.sqrt(-math.expm1(-2 * h))
    return decay * x - math.expm1(-2 * h) * slope + up * noise, (denoised,)


def _extrapolated(denoised: Any, sigmas: Sigmas, i: int, memory: Memory) -> Any:
    """The denoised x at the middle of the step in log sigma, on the line through this one and the last."""
    if memory is None:
        return denoised
    (denoised_before,) = memory
    r = math.log(sigmas[i - 1] / sigmas[i]) / math.log(sigmas[i] / sigmas[i + 1])
    return (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * denoised_before


def unipc(
    denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None, order: int = 2
) -> tuple[Any, Memory]:
    """UniPC of order 1 to 3 with B(h) = e^h - 1, "bh2" (Zhao et al. 2023, Algorithms 1 and 2, data prediction).

    The order grows from 1 at the start and falls to 1 at the end. memory: x as corrected one step ago, then the denoised x
    of the last steps, newest first.
    """
    order = int(order)
    denoised = denoise(x, sigmas[i])
    past: tuple[Any, ...] = ()
    if memory is not None:
        x_before, *rest = memory
        x = _unified(x_before, sigmas, i - 1, tuple(rest), _order(sigmas, i - 1, order), denoised)
        past = tuple(rest)
    if sigmas[i + 1] == 0:
        return denoised, None
    past = (denoised, *past)[:order]
    return _unified(x, sigmas, i, past, _order(sigmas, i, order)), (x, *past)


def lcm(denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None) -> tuple[Any, Memory]:
    """Multistep consistency sampling (Song et al. 2023, Algorithm 1; Luo et al. 2023, Algorithm 3): denoise, add noise.

    For networks distilled to jump to the end at once. Their boundary scaling c_skip, c_out is left out: at the noise
    levels that steps start from it is 0, 1 to five digits and more.
    """
    denoised = denoise(x, sigmas[i])
    return (denoised + sigmas[i + 1] * noise if sigmas[i + 1] else denoised), None


def gaussian_exact(
    denoise: Denoiser, x: Any, sigmas: Sigmas, i: int, memory: Memory = None, noise: Any = None
) -> tuple[Any, Memory]:
    """Exact for unit Gaussian data at any number of steps; only the network's difference from it is carried as in DDIM.

    For x0 ~ N(0, 1) the denoiser is x / (1 + sigma^2) and the flow keeps x / sqrt(1 + sigma^2) constant. DDIM with few
    steps shrinks that spread; here the Gaussian part moves along its own flow.
    """
    sigma, sigma_next = sigmas[i], sigmas[i + 1]
    var, var_next = 1 + sigma * sigma, 1 + sigma_next * sigma_next
    difference = denoise(x, sigma) - x / var
    return math.sqrt(var_next / var) * x + (1 - sigma_next / sigma) * difference, None


SAMPLERS: dict[str, Sampler] = {
    "euler": euler, "heun": heun, "ddim": ddim, "ddpm": ddpm, "dpmpp_2m": dpmpp_2m, "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc, "lcm": lcm, "gaussian_exact": gaussian_exact,
}  # fmt: skip


@cache
def sampler(name: str, **choices: float) -> Sampler:
    """The method `name` with its keywords chosen; the same function again for the same question."""
    return partial(SAMPLERS[name], **choices) if choices else SAMPLERS[name]


def _churned(
    x: Any, sigmas: Sigmas, i: int, noise: Any, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Any, float]:
    """x and its noise level after a little noise was added (Karras et al. 2022, Algorithm 2, lines 4 to 6)."""
    sigma = sigmas[i]
    gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1) if s_tmin <= sigma <= s_tmax else 0.0
    if gamma == 0:
        return x, sigma
    sigma_hat = sigma * (1 + gamma)
    return x + (math.sqrt(sigma_hat**2 - sigma**2) * s_noise) * noise, sigma_hat


def _order(sigmas: Sigmas, i: int, order: int) -> int:
    """The order of UniPC's step i: no more than the steps that were, and no more than those that are left."""
    return min(order, i + 1, len(sigmas) - 1 - i)


def _unified(x: Any, sigmas: Sigmas, i: int, past: tuple[Any, ...], order: int, there: Any = None) -> Any:
    """The step i of Zhao et al. 2023: UniP (equation 8), or UniC (equation 3) where `there`, denoised at its end, is known.

    past: denoised x, newest first. The weights rho solve R rho = b, equations 4 to 6 and appendix E.
    """
    h = math.log(sigmas[i] / sigmas[i + 1])
    r = [math.log(sigmas[i] / sigmas[i - k]) / h for k in range(1, order)]
    slopes = [(past[k + 1] - past[0]) / r[k] for k in range(order - 1)]
    if there is not None:
        r, slopes = [*r, 1.0], [*slopes, there - past[0]]
    b, phi, factorial = [], math.expm1(-h) / -h - 1, 1
    for k in range(1, len(r) + 1):
        b.append(phi * factorial / math.expm1(-h))
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    # With one slope the papers' code takes the limit of small h; kept, as it is what everyone compares with.
    rho = [0.5] if len(r) == 1 else _solve([[node**k for node in r] for k in range(len(r))], b)
    out = (sigmas[i + 1] / sigmas[i]) * x - math.expm1(-h) * past[0]
    for weight, slope in zip(rho, slopes):
        out = out - math.expm1(-h) * weight * slope
    return out


def _solve(matrix: list[list[float]], b: list[float]) -> list[float]:
    """The solution of a small linear system, by Gauss and Jordan with pivots."""
    rows = [[*row, value] for row, value in zip(matrix, b)]
    for k in range(len(rows)):
        pivot = max(range(k, len(rows)), key=lambda n: abs(rows[n][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for n in range(len(rows)):
            if n != k:
                rows[n] = [value - rows[n][k] * pivoted for value, pivoted in zip(rows[n], rows[k])]
    return [row[-1] for row in rows]
