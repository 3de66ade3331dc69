"""The training loop: batches from a pool of windows, v-prediction, a moving average of the weights, a checkpoint a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..plugins.defect_synthesis import region
from .defects_net import DefectNet

Feeds = dict[str, torch.Tensor]
Batch = Callable[[int, np.random.Generator], tuple[torch.Tensor, torch.Tensor, Feeds]]
"""(size, rng) -> clean change (B, 1, 64, 64), the noise it is drawn from, and the network's inputs beside x and t."""


@dataclass(frozen=True)
class Fitted:
    """The moving average of the weights, and what it took."""

    net: DefectNet
    steps: int
    cpu_s: float


def fit(
    net: DefectNet, draw: Batch, minutes: float, state: Path, seed: int, rate: float, batch: int = 16,
    times: Sequence[float] | None = None,
) -> Fitted:  # fmt: skip
    """Trains `net` for so many CPU minutes; `state` is where it is left each minute, and gone on from where it is there.

    times: the only times 0..1 at which it will be asked, one as often as it is named; default: all of them.
    """
    net = net.to(memory_format=torch.channels_last).train()
    averaged = DefectNet(net.classes)
    averaged.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2, betas=(0.9, 0.99))
    step, spent, losses = 0, 0.0, []
    if state.exists():
        kept = torch.load(state, weights_only=True)
        net.load_state_dict(kept["net"])
        averaged.load_state_dict(kept["averaged"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        print(f"going on from step {step}, {spent / 60:.1f} min", flush=True)
    rng = np.random.default_rng([seed, step])
    total, began, saved = minutes * 60, time.process_time() - spent, time.process_time()
    while spent < total:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * min(spent / total, 1.0)) + 0.01)
        x0, eps, feeds = draw(batch, rng)
        even = (np.arange(batch) + rng.random(batch)) / batch
        t = torch.from_numpy((even if times is None else rng.choice(times, batch)).astype(np.float32))
        loss = loss_of(net, x0, eps, t, feeds)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), net.parameters()):
                slow.lerp_(fast, 1 - keep)
        losses.append(loss.item())
        spent = time.process_time() - began
        if step % 100 == 0:
            print(f"step {step}  loss {np.mean(losses[-400:]):.4f}  {spent / 60:.1f} of {minutes:g} min", flush=True)
        if time.process_time() - saved > 60 or spent >= total:
            saved = time.process_time()
            kept = {"net": net.state_dict(), "averaged": averaged.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**kept, "step": step, "spent": spent}, state.with_suffix(".new"))
            state.with_suffix(".new").replace(state)
    return Fitted(averaged.eval(), step, spent)


def loss_of(net: DefectNet, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor, feeds: Feeds) -> torch.Tensor:
    """Mean over the images of the squared error of v under the mask (Salimans & Ho 2022, section 4)."""
    alpha, sigma = torch.cos(t * math.pi / 2)[:, None, None, None], torch.sin(t * math.pi / 2)[:, None, None, None]
    v = net((alpha * x0 + sigma * eps).to(memory_format=torch.channels_last), t, **feeds)
    mask = feeds["mask"]
    return (((v - (alpha * eps - sigma * x0)) ** 2 * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()


class Draw:
    """Draws batches from the pool: classes alike often, windows mirrored and re-lit, with fresh noise.

    share: of each class, how often a real window is taken and not a procedural one.
    """

    def __init__(
        self, pool: dict[str, np.ndarray], table: dict[str, list[float]], classes: tuple[str, ...], share: dict[str, float]
    ):
        self.pool, self.count, self.share = pool, len(classes), [share[c] for c in classes]
        self.severity = severities(pool, table, classes)
        self.ids = [
            [np.flatnonzero((pool["label"] == k) & (pool["real"] == r)) for r in (False, True)] for k in range(self.count)
        ]

    def __call__(self, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, Feeds]:
        """See `Batch`."""
        shape = (size, 1, region.SIDE, region.SIDE)
        change, clean, mask, eps = (np.zeros(shape, np.float32) for _ in range(4))
        label, severity, scale = (np.zeros(s, np.float32) for s in ((size, self.count), size, size))
        for b in range(size):
            k = int(rng.integers(self.count))
            made, real = self.ids[k]
            ids = real if len(real) and (not len(made) or rng.random() < self.share[k]) else made
            i = int(ids[rng.integers(len(ids))])
            y, c, m = (self.pool[name][i].astype(np.float32) for name in ("defect", "clean", "mask"))
            turns = (slice(None, None, -1 if rng.random() < 0.5 else 1), slice(None, None, -1 if rng.random() < 0.5 else 1))
            y, c, m = y[turns], c[turns], m[turns]
            if not self.pool["real"][i] and rng.random() < 0.5:
                y, c, m = y.T, c.T, m.T
            level, gain = region.units(c, m)
            gain *= float(np.exp(rng.normal(0, 0.08)))
            change[b, 0], clean[b, 0], mask[b, 0] = (y - c) * m / gain, np.clip((c - level) / gain, -4, 4), m
            eps[b, 0] = region.coloured(rng.standard_normal((region.SIDE, region.SIDE), dtype=np.float32)) * m
            label[b, k] = 1
            severity[b], scale[b] = self.severity[i], self.pool["scale"][i]
        feeds = {"clean": clean, "mask": mask, "label": label, "severity": severity, "scale": scale}
        return torch.from_numpy(change), torch.from_numpy(eps), {k: torch.from_numpy(v) for k, v in feeds.items()}


def severities(pool: dict[str, np.ndarray], table: dict[str, list[float]], classes: tuple[str, ...]) -> np.ndarray:
    """The severity 0..1 of each window by its strength in the table of its class, float32."""
    points = np.linspace(0, 1, len(next(iter(table.values()))))
    tables = [np.array(table[c]) + 1e-6 * np.arange(len(points)) for c in classes]
    return np.array([np.interp(s, tables[k], points) for s, k in zip(pool["strength"], pool["label"])], np.float32)
