"""The universal imputation network in torch: an encoder that runs once per window, a small denoiser per sample and step.

No part of it knows how many tags there are: weights are shared by all tags, which talk to each other through K x K
attention whose scores are products over the whole window. Both heads start at zero, where the network is the Gaussian.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..plugins.sensor_imputation.features import CELL_FEATURES
from ..plugins.sensor_imputation.gaussian import LENGTH
from ..plugins.sensor_imputation.quantiles import KNOTS

HEADS = 4
MIXES = HEADS + 1


class SensorMix(nn.Module):
    """Tags listen to each other: HEADS attentions and one fixed mix by correlation. h (W, K, L, D)."""

    def __init__(self, width: int, keys: int = 4):
        super().__init__()
        self.width, self.keys = width, keys
        self.query, self.key = nn.Linear(width, HEADS * keys), nn.Linear(width, HEADS * keys)
        self.value, self.out = nn.Linear(width, MIXES * (width // HEADS)), nn.Linear(MIXES * (width // HEADS), width)
        self.lean = nn.Parameter(torch.zeros(2, HEADS, 1, 1))

    def scores(self, h: Tensor, relation: Tensor) -> Tensor:
        """(W, MIXES, K, K), who listens to whom."""
        w, k = h.shape[0], h.shape[1]
        shape = (w, k, LENGTH, HEADS, self.keys)
        q = self.query(h).reshape(shape).permute(0, 3, 1, 2, 4).reshape(w, HEADS, k, LENGTH * self.keys)
        c = self.key(h).reshape(shape).permute(0, 3, 1, 2, 4).reshape(w, HEADS, k, LENGTH * self.keys)
        r = relation[:, None]
        attention = torch.softmax(
            q @ c.transpose(2, 3) / math.sqrt(LENGTH * self.keys) + self.lean[0] * r.abs() + self.lean[1] * r, -1
        )
        return torch.cat([attention, r / (r.abs().sum(-1, keepdim=True) + 1)], 1)

    def forward(self, h: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
        w, k, part = h.shape[0], h.shape[1], self.width // HEADS
        mix = self.scores(h, relation)
        v = self.value(h).reshape(w, k, LENGTH, MIXES, part).permute(0, 3, 1, 2, 4).reshape(w, MIXES, k, LENGTH * part)
        mixed = (mix @ v).reshape(w, MIXES, k, LENGTH, part).permute(0, 2, 3, 1, 4).reshape(w, k, LENGTH, MIXES * part)
        return self.out(mixed), mix


class EncoderBlock(nn.Module):
    """Along time, across tags, within a cell; each added to what was there."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.time = nn.Sequential(nn.Linear(LENGTH, 64), nn.ReLU(), nn.Linear(64, LENGTH))
        self.tags = SensorMix(width)
        self.cell = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, h: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
        h = h + self.time(self.norms[0](h).transpose(2, 3)).transpose(2, 3)
        mixed, mix = self.tags(self.norms[1](h), relation)
        h = h + mixed
        return h + self.cell(self.norms[2](h)), mix


class Encoder(nn.Module):
    """cells (W, K, L, CELL_FEATURES), relation (W, K, K) -> knots (W, K, L, 19), context (W, K, L, C), mix (W, MIXES, K, K).

    knots: the answer's quantiles at the levels 0.05 ... 0.95 in units of the Gaussian deviation, ascending by construction.
    """

    def __init__(self, width: int = 40, blocks: int = 4, context: int = 16):
        super().__init__()
        self.enter = nn.Linear(CELL_FEATURES, width)
        self.blocks = nn.ModuleList([EncoderBlock(width, 2 * width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head, self.context = nn.Linear(width, len(KNOTS)), nn.Linear(width, context)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        z = torch.tensor(KNOTS, dtype=torch.float32)
        middle = len(KNOTS) // 2
        below = torch.tril(torch.ones(len(z), len(z) - 1), -1)  # knot i = sum of the increments before it ...
        self.register_buffer("increments", z.diff())
        self.register_buffer("sums", (below - below[middle]).T.contiguous())  # ... counted from the middle one

    def forward(self, cells: Tensor, relation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.enter(cells)
        mix = relation[:, None]
        for block in self.blocks:
            h, mix = block(h, relation)
        h = self.norm(h)
        raw = self.head(h)
        steps = self.increments * torch.exp(3 * torch.tanh(raw[..., 1:] / 3))
        return raw[..., :1] + steps @ self.sums, self.context(h), mix


class DenoiserBlock(nn.Module):
    """h (W, S, K, L, D), told the time by a scale and a shift; listens to other tags as the encoder found best."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.cell_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.told = nn.Linear(16, 2 * width)
        self.time = nn.Linear(LENGTH, LENGTH)
        self.value, self.out = nn.Linear(width, MIXES * 4), nn.Linear(MIXES * 4, width)
        self.cell = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor, told: Tensor, mix: Tensor) -> Tensor:
        w, s, k, _, width = h.shape
        scale, shift = self.told(told)[:, None, None, None].chunk(2, -1)
        g = self.norm(h) * (1 + scale) + shift
        h = h + torch.relu(self.time(g.transpose(3, 4))).transpose(3, 4)
        v = self.value(g).reshape(w, s, k, LENGTH, MIXES, 4).permute(0, 4, 2, 1, 3, 5).reshape(w, MIXES, k, s * LENGTH * 4)
        mixed = (mix @ v).reshape(w, MIXES, k, s, LENGTH, 4).permute(0, 3, 2, 4, 1, 5).reshape(w, s, k, LENGTH, MIXES * 4)
        h = h + self.out(mixed)
        return h + self.cell(self.cell_norm(h))


class Denoiser(nn.Module):
    """x (W, S, K, L), t (W,) in 0..1, context, mix, missing (W, K, L) -> out (W, S, K, L), v-prediction, 0 where measured."""

    def __init__(self, width: int = 16, blocks: int = 2, context: int = 16):
        super().__init__()
        self.enter, self.condition = nn.Linear(1, width), nn.Linear(context, width)
        self.clock = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
        self.blocks = nn.ModuleList([DenoiserBlock(width) for _ in range(blocks)])
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, mix: Tensor, missing: Tensor) -> Tensor:
        phi = t[:, None] * (math.pi / 2)
        told = self.clock(torch.cat([torch.cos(phi), torch.sin(phi), torch.cos(2 * phi), torch.sin(2 * phi)], 1))
        h = self.enter(x[..., None]) + self.condition(context)[:, None]
        for block in self.blocks:
            h = block(h, told, mix)
        out: Tensor = self.leave(self.norm(h))[..., 0] * missing[:, None]
        return out
