"""A small detector of defects: one logit for each 2 x 2 pixels of a window, told nothing of classes. For the acceptance gate
(trained on real defects alone) and for weighing what synthetic ones are worth.

Strided convolutions down to an eighth of the window, dilated residual blocks there, and back up with one skip; some
55 000 parameters, some 7 million multiplications a window of 64 x 64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..plugins.defect_synthesis import measure
from ..plugins.defect_synthesis.region import SIDE

WIDTH = 32


class Residual(nn.Module):
    """Two convolutions, the first dilated, and a skip."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, H, W)."""
        h = self.conv1(functional.relu(self.norm1(x)))
        return x + self.conv2(functional.relu(self.norm2(h)))


class Detector(nn.Module):
    """x (B, 1, H, W), see `measure.detector_input`; H and W multiples of 8 -> logits (B, 1, H / 2, W / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 5, 2, 2)
        self.down = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, WIDTH, 3, 2, 1))
        self.body = nn.Sequential(Residual(WIDTH, 1), Residual(WIDTH, 2), nn.GroupNorm(8, WIDTH), nn.ReLU())
        self.up = nn.Conv2d(WIDTH, 4 * 16, 1)
        self.mix = nn.Conv2d(4 + 16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 1, 3, padding=1)
        nn.init.constant_(self.last.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        fine = self.first(x)
        coarse = functional.pixel_shuffle(self.up(self.body(self.down(fine))), 4)
        return self.last(functional.relu(self.mix(functional.relu(torch.cat([coarse, fine], 1)))))

    def respond(self, windows: np.ndarray, most: int = 64) -> np.ndarray:
        """As `measure.respond`: logits (n, H / 2, W / 2) for windows (n, H, W), grey 0..255."""
        fed = torch.from_numpy(measure.detector_input(windows.astype(np.float32)))
        with torch.no_grad():
            return np.concatenate([self(fed[i : i + most])[:, 0].numpy() for i in range(0, len(fed), most)])


@dataclass(frozen=True)
class Windows:
    """What a detector learns from: grey windows (n, SIDE, SIDE) uint8, their masks 0/1, and how often each is drawn."""

    grey: np.ndarray
    mask: np.ndarray
    weight: np.ndarray

    def only(self, chosen: np.ndarray) -> Windows:
        """Those that are chosen, (n,) bool."""
        return Windows(self.grey[chosen], self.mask[chosen], self.weight[chosen])


def fit(defects: Windows, good: np.ndarray, steps: int, seed: int, say: Callable[[str], None], batch: int = 32) -> Detector:
    """A detector trained for so many steps on defect windows and good ones (n, SIDE, SIDE) uint8, half of each."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = Detector()
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    chance = defects.weight / defects.weight.sum()
    none = np.zeros((SIDE, SIDE), np.uint8)
    told = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * np.cos(np.pi * step / steps) + 0.01)
        pairs = [(defects.grey[i], defects.mask[i]) for i in rng.choice(len(chance), batch // 2, p=chance)]
        pairs += [(good[i], none) for i in rng.integers(len(good), size=batch - len(pairs))]
        turned = [_turned(grey, mask, rng) for grey, mask in pairs]
        fed = measure.detector_input(np.stack([g for g, _ in turned]))
        fed = fed * np.exp(rng.normal(0, 0.15, (batch, 1, 1, 1))).astype(np.float32)
        fed += rng.normal(0, 0.03, fed.shape).astype(np.float32)
        wanted = torch.from_numpy(measure.on_grid(np.stack([m for _, m in turned])).astype(np.float32))
        wanted = wanted * torch.from_numpy(np.stack([m.any() for _, m in turned]).astype(np.float32))[:, None, None]
        logits = net(torch.from_numpy(fed))[:, 0]
        found = torch.sigmoid(logits)
        overlap = 1 - (2 * (found * wanted).sum() + 1) / (found.sum() + wanted.sum() + 1)
        loss = functional.binary_cross_entropy_with_logits(logits, wanted) + 0.5 * overlap
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"detector: step {step + 1} of {steps}, loss {loss.item():.3f}")
    return net.eval()


def _turned(grey: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both mirrored and turned alike, grey as float32."""
    ways = slice(None, None, 1 if rng.random() < 0.5 else -1), slice(None, None, 1 if rng.random() < 0.5 else -1)
    grey, mask = grey[ways].astype(np.float32), mask[ways]
    return (grey.T, mask.T) if rng.random() < 0.5 else (grey, mask)


def export(net: Detector, path: Path) -> None:
    """The network as ONNX at `path`: input `x` (batch, 1, SIDE, SIDE), output `out`, any batch."""
    with torch.no_grad():
        torch.onnx.export(
            net, (torch.zeros(2, 1, SIDE, SIDE),), str(path), input_names=["x"], output_names=["out"], opset_version=17,
            dynamic_axes={"x": {0: "batch"}, "out": {0: "batch"}}, dynamo=False,
        )  # fmt: skip
