"""One sampler over a Python callable, in float64, for comparison with other implementations; the loop is the product's own.

    from denoised.bench.judges.trajectory import run
    states = run("dpmpp_2m", "linear", "eps", denoiser, x, 20, noise)

The conventions are those of the reference implementations (diffusers, k-diffusion), so that whole trajectories agree:

- discrete schedules (linear 1e-4 ... 0.02, scaled-linear 0.00085 ... 0.012, cosine of Nichol & Dhariwal, sigmoid) step where
  each method does by custom: ddim and ddpm on multiples of 1000 // steps ("leading"), euler and heun from 999 to 0 inclusive
  ("linspace"), lcm on numbers that it is distilled on (19, 39 ... 999), the others on "linspace" over steps + 1 with the last
  left out. Noise levels between numbers are interpolated linearly in sigma.
- karras (rho 7) and exponential go from sigma 80 to 0.002.
- every trajectory ends with a step to sigma 0, which is first order; unipc lowers its order towards it.
- the start is sigma_max * x, without the clean part, which is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from denoised.engines import schedules
from denoised.engines.denoise import denoise, start
from denoised.engines.host import CallableBound
from denoised.engines.plan import preserving
from denoised.engines.samplers import SAMPLERS, Sampler, sampler

METHODS: dict[str, Sampler] = {**SAMPLERS, "unipc_3": sampler("unipc", order=3)}
SPACINGS: dict[str, schedules.Spacing] = {
    "ddim": schedules.leading, "ddpm": schedules.leading, "lcm": schedules.distilled,
    "euler": schedules.linspace_to_0, "heun": schedules.linspace_to_0,
}  # fmt: skip
"""Where a method steps on a discrete schedule; those that are not here: `schedules.linspace`."""
DISCRETE: dict[str, Callable[..., list[float]]] = {
    "linear": schedules.linear, "scaled-linear": schedules.scaled_linear, "cosine": schedules.discrete_cosine,
    "sigmoid": schedules.sigmoid,
}  # fmt: skip
CONTINUOUS: dict[str, Callable[..., list[float]]] = {"karras": schedules.karras, "exponential": schedules.exponential}


def sigmas_of(method: str, schedule: str, steps: int) -> list[float]:
    """The noise levels, descending, the last 0."""
    if schedule in CONTINUOUS:
        return CONTINUOUS[schedule](steps)
    return DISCRETE[schedule](steps, spacing=SPACINGS.get(method, schedules.linspace))


def run(
    method: str,
    schedule: str,
    prediction: str,
    denoiser: Callable[[np.ndarray, float], np.ndarray],
    x: np.ndarray,
    steps: int,
    noise: np.ndarray | None = None,
) -> list[np.ndarray]:
    """All states, the start first, float64, in the variance-exploding scale.

    denoiser(x, sigma): x clean + sigma * noise; returns the raw prediction (eps, v or x0). x: unit noise. noise
    (steps, *x.shape): unit noise that a stochastic method uses in order.
    """
    sigmas, unit = sigmas_of(method, schedule, steps), np.asarray(x, np.float64)

    def network(x_vp: np.ndarray, sigma: float) -> np.ndarray:
        return denoiser(x_vp / preserving(sigma), sigma)

    given = None if noise is None else lambda step: np.asarray(noise[step - 1], np.float64)
    bound = CallableBound([network], unit)
    trajectory = denoise(bound, METHODS[method], prediction, sigmas, start(unit, sigmas), given, time=float)
    return [unit * sigmas[0], *(at.x / preserving(sigmas[at.step]) for at in trajectory)]
