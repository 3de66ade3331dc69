"""The network that draws a defect into a region of interest, and its way into ONNX.

A small U-Net in pixel space (Ho et al. 2020, section 3.3, with the scale-shift conditioning of Dhariwal & Nichol 2021),
all convolutions at half resolution or less: a 2x2 pixel-unshuffle stem, channels 24/48/96, attention at 8x8 only.
It predicts v (Salimans & Ho 2022) of the *change* that turns good pixels into the defect, and is multiplied by the
mask, so that outside the mask nothing can change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 64
"""Side of the region of interest, pixels."""
WIDTHS = (24, 48, 96)
EMBEDDING = 96


class Block(nn.Module):
    """Two convolutions and a skip; the embedding scales and shifts between them."""

    def __init__(self, ins: int, outs: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, ins), nn.Conv2d(ins, outs, 3, padding=1)
        self.film = nn.Linear(EMBEDDING, 2 * outs)
        self.norm2, self.conv2 = nn.GroupNorm(8, outs), nn.Conv2d(outs, outs, 3, padding=1)
        self.skip = nn.Conv2d(ins, outs, 1) if ins != outs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (B, ins, H, W), embedding: (B, EMBEDDING)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(functional.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over the places of a small map, four heads."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.GroupNorm(8, width), nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        weights = torch.softmax(q.transpose(-1, -2) @ k * (c // self.heads) ** -0.5, dim=-1)
        return x + self.out((v @ weights.transpose(-1, -2)).reshape(b, c, h, w))


class DefectNet(nn.Module):
    """x, clean, mask (B, 1, 64, 64), t, severity, scale (B,), label (B, classes) one-hot -> v of the change, (B, 1, 64, 64).

    x: the noisy change in the variance-preserving scale. clean: the good pixels, (grey - level) / gain. mask: 1 = to be
    generated. t in 0..1, alpha = cos(pi t / 2). severity in 0..1. scale: log2 of the image pixels per network pixel.
    """

    def __init__(self, classes: int):
        super().__init__()
        a, b, c = WIDTHS
        self.classes = classes
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(0, 6, dtype=torch.float32), persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(12 + 2 + classes, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU()
        )
        self.stem = nn.Conv2d(12, a, 3, padding=1)
        self.down = nn.ModuleList([Block(a, a), Block(a, a), Block(b, b), Block(b, b), Block(c, c)])
        self.shrink = nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1), nn.Conv2d(b, c, 3, 2, 1)])
        self.middle, self.attention = Block(c, c), Attention(c)
        self.up = nn.ModuleList([Block(2 * c, b), Block(2 * b, b), Block(2 * b, a), Block(2 * a, a), Block(2 * a, a)])
        self.head = nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, 4, 3, padding=1))
        nn.init.zeros_(self.head[2].weight)
        nn.init.zeros_(self.head[2].bias)

    def forward(
        self, x: Tensor, t: Tensor, clean: Tensor, mask: Tensor, label: Tensor, severity: Tensor, scale: Tensor
    ) -> Tensor:
        """See the class."""
        phases = t[:, None] * self.frequencies
        facts = torch.cat([phases.sin(), phases.cos(), label, severity[:, None] * 2 - 1, scale[:, None] / 2], dim=1)
        e = self.embed(facts)
        h = self.stem(functional.pixel_unshuffle(torch.cat([x, clean, mask * 2 - 1], dim=1), 2))
        d1 = self.down[0](h, e)
        d2 = self.down[1](d1, e)
        d3 = self.down[2](self.shrink[0](d2), e)
        d4 = self.down[3](d3, e)
        d5 = self.down[4](self.shrink[1](d4), e)
        h = self.attention(self.middle(d5, e))
        h = functional.interpolate(self.up[0](torch.cat([h, d5], 1), e), scale_factor=2.0, mode="nearest")
        h = self.up[1](torch.cat([h, d4], 1), e)
        h = functional.interpolate(self.up[2](torch.cat([h, d3], 1), e), scale_factor=2.0, mode="nearest")
        h = self.up[3](torch.cat([h, d2], 1), e)
        h = self.up[4](torch.cat([h, d1], 1), e)
        return functional.pixel_shuffle(self.head(h), 2) * mask


def save_weights(net: DefectNet, classes: Sequence[str], path: Path) -> None:
    """The weights in half precision, with the names of the classes, as .npz at `path`."""
    weights = {name: values.numpy().astype(np.float16) for name, values in net.state_dict().items()}
    np.savez_compressed(path, classes=np.array(classes), **weights)  # type: ignore[arg-type]


def load_weights(path: Path, classes: Sequence[str]) -> DefectNet:
    """A network for `classes` with the weights at `path`; a class that those do not know begins as their mean."""
    with np.load(path) as f:
        kept = {name: torch.from_numpy(f[name].astype(np.float32)) for name in f.files if name != "classes"}
        known = [str(name) for name in f["classes"]]
    first = kept["embed.0.weight"]
    at = first.shape[1] - 2 - len(known)
    of = {name: first[:, at + k] for k, name in enumerate(known)}
    unknown = first[:, at : at + len(known)].mean(1)
    columns = torch.stack([of.get(name, unknown) for name in classes], 1)
    kept["embed.0.weight"] = torch.cat([first[:, :at], columns, first[:, -2:]], 1)
    net = DefectNet(len(classes))
    net.load_state_dict(kept)
    return net


def export(net: DefectNet, path: Path) -> None:
    """The network as ONNX at `path`: inputs as in `DefectNet`, output `out`, any batch."""
    net = net.eval()
    b, image = 2, (2, 1, SIDE, SIDE)
    feeds = {
        "x": torch.zeros(image), "t": torch.zeros(b), "clean": torch.zeros(image), "mask": torch.ones(image),
        "label": torch.zeros(b, net.classes), "severity": torch.zeros(b), "scale": torch.zeros(b),
    }  # fmt: skip
    with torch.no_grad():
        torch.onnx.export(
            net, tuple(feeds.values()), str(path), input_names=list(feeds), output_names=["out"], opset_version=17,
            dynamic_axes={name: {0: "batch"} for name in (*feeds, "out")}, dynamo=False,
        )  # fmt: skip
