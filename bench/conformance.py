"""Whole trajectories of our samplers against those of diffusers, step by step: `make conformance`.

For every method that both have, over every schedule and prediction, with a network whose answer is known (a mixture of two
Gaussians). The limit is 1e-5 of the largest value of the state. diffusers rounds schedules and states to float32, which
alone can be off by more; here it counts in float64, and its noise levels are compared with ours before they replace it.
Prints a table; exits 1 where a method is over the limit or steps elsewhere.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from functools import partial
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from denoised.bench.judges.trajectory import CONTINUOUS, DISCRETE, run, sigmas_of

LIMIT = 1e-5
STEPS = (1, 2, 4, 10, 20, 30)
SHAPE = (3, 4, 8, 8)
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.02},
    "karras": {}, "exponential": {},
}  # fmt: skip
DPM = {"algorithm_type": "dpmsolver++"}
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False, "timestep_spacing": "leading"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", DPM),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2}),
    "unipc_3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "lcm": ("LCMScheduler", {}),
}
# LCM's boundary scaling, which ours leaves out, is felt in the sixth digit where noise is faint: at more than 10 steps.
ON_NUMBERS = ("ddim", "ddpm", "lcm")
"""Their schedulers know numbered noise levels alone, no karras or exponential ones."""

FROM_0_TO_999 = ("euler", "heun")
"""Their schedulers take number 0 where there is one step alone: hardly any noise. Ours take 999."""


def network(x: np.ndarray, sigma: float, prediction: str) -> np.ndarray:
    """The exact answer for data from 0.6 N(-1, 0.3^2) + 0.4 N(1.2, 0.5^2); x in the variance-exploding scale."""
    logs, means = [], []
    for share, mean, std in ((0.6, -1.0, 0.3), (0.4, 1.2, 0.5)):
        var = std**2 + sigma**2
        logs.append(math.log(share) - (x - mean) ** 2 / (2 * var) - math.log(var) / 2)
        means.append(mean + std**2 / var * (x - mean))
    first = 1 / (1 + np.exp(logs[1] - logs[0]))
    clean = first * means[0] + (1 - first) * means[1]
    eps = (x - clean) / sigma
    alpha = 1 / math.sqrt(1 + sigma**2)
    out: np.ndarray = {"eps": eps, "x0": clean, "v": alpha * eps - sigma * alpha * clean}[prediction]
    return out


def peer(method: str, schedule: str, prediction: str) -> Any:
    """diffusers' scheduler, its noise levels in float64."""
    name, options = PEERS[method]
    continuous = schedule in CONTINUOUS
    if continuous:
        options = {**options, f"use_{schedule}_sigmas": True}
        sigmas = np.array(CONTINUOUS[schedule](1000)[-2::-1])
        options["trained_betas"] = [0.01] * 1000  # replaced below
    else:
        sigmas = np.array(DISCRETE[schedule](1000, spacing=lambda steps, trained: range(trained - 1, -1, -1))[-2::-1])
        options = {**options, **BETAS[schedule]}
        if schedule == "sigmoid":  # only one of them knows it by name
            options["trained_betas"] = diffusers.DDPMScheduler(**BETAS[schedule]).betas.numpy()
            options["beta_schedule"] = "linear"
    scheduler = getattr(diffusers, name)(prediction_type=NAMES[prediction], **options)
    alphas = torch.from_numpy(1 / (1 + sigmas**2))
    if not continuous:
        off = (scheduler.alphas_cumprod.double() / alphas - 1).abs().max()
        assert off < 1e-6, f"{method} {schedule}: diffusers' own noise levels differ by {off:.1e}"
    scheduler.alphas_cumprod = alphas
    for known in ("final_alpha_cumprod", "one"):
        if hasattr(scheduler, known):
            setattr(scheduler, known, torch.tensor(1.0, dtype=torch.float64))
    return scheduler


def theirs(scheduler: Any, prediction: str, x: np.ndarray, sigmas: list[float], noise: np.ndarray) -> list[np.ndarray]:
    """All states of diffusers' loop in the variance-exploding scale, the start first."""
    steps = len(sigmas) - 1
    scheduler.set_timesteps(steps)
    heun = isinstance(scheduler, diffusers.HeunDiscreteScheduler)
    exploding = heun or isinstance(scheduler, diffusers.EulerDiscreteScheduler)
    levels = [float(s) for s in getattr(scheduler, "sigmas", [])]
    if heun:
        levels = [levels[0], *levels[1:-1:2], 0.0]
    if not levels:
        levels = [math.sqrt(1 / float(scheduler.alphas_cumprod[t]) - 1) for t in scheduler.timesteps] + [0.0]
    assert np.allclose(levels, sigmas, rtol=1e-6), f"steps elsewhere: {levels} for {sigmas}"
    if heun:
        scheduler.sigmas = torch.tensor([sigmas[0], *np.repeat(sigmas[1:-1], 2), 0.0], dtype=torch.float64)
    elif hasattr(scheduler, "sigmas"):
        scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)

    def scale(sigma: float) -> float:
        return 1.0 if exploding else 1 / math.sqrt(1 + sigma**2)

    state = torch.from_numpy(x * sigmas[0] * scale(sigmas[0]))
    states, drawn = [x * sigmas[0]], iter(noise)
    for n, t in enumerate(scheduler.timesteps):
        at = (n + 1) // 2 if heun else n
        seen = state.numpy() / scale(sigmas[at])
        answer = torch.from_numpy(network(seen, sigmas[at], prediction))
        more = {}
        if isinstance(scheduler, diffusers.DPMSolverMultistepScheduler):
            more["variance_noise"] = torch.from_numpy(next(drawn))
        where = f"{type(scheduler).__module__}.randn_tensor"
        with mock.patch(where, lambda *a, **k: torch.from_numpy(next(drawn)), create=True):
            state = scheduler.step(answer, t, state, return_dict=False, **more)[0].double()
        if not heun or n % 2 == 1 or n == 2 * steps - 2:
            states.append(state.numpy() / scale(sigmas[len(states)]))
    return states


def main() -> None:
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    rng = np.random.default_rng(0)
    x, worst_of_all = rng.standard_normal(SHAPE), 0.0
    print(
        f"diffusers {diffusers.__version__}, torch {torch.__version__}; largest relative difference of a state, {STEPS} steps"
    )
    print(f"{'':14}" + "".join(f"{schedule:>15}" for schedule in BETAS))
    for method in PEERS:
        row = f"{method:14}"
        for schedule in BETAS:
            if method in ON_NUMBERS and schedule in CONTINUOUS:
                row += f"{'-':>15}"
                continue
            worst = 0.0
            for prediction, steps in itertools.product(NAMES, STEPS):
                if (steps == 1 and method in FROM_0_TO_999) or (steps > 10 and method == "lcm"):
                    continue
                noise = rng.standard_normal((steps, *SHAPE))
                sigmas = sigmas_of(method, schedule, steps)
                want = theirs(peer(method, schedule, prediction), prediction, x, sigmas, noise)
                have = run(method, schedule, prediction, partial(network, prediction=prediction), x, steps, noise)
                assert len(want) == len(have) == steps + 1
                worst = max(worst, *(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(have, want)))
            worst_of_all = max(worst_of_all, worst)
            row += f"{worst:15.1e}" + ("" if worst <= LIMIT else "!")
        print(row, flush=True)
    print(f"worst {worst_of_all:.1e}, limit {LIMIT:.0e}")
    sys.exit(int(worst_of_all > LIMIT))


if __name__ == "__main__":
    with mock.patch.object(torch, "float32", torch.float64):
        main()
