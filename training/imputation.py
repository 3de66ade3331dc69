"""Trains the universal imputation network on synthetic plants and writes it as a bundle.

    python -m denoised.training.imputation --out models/plant-imputer --work runs/imputation --minutes 60

Runs on one CPU core. Shards of cases are made first and more of them as the training goes on; they and a checkpoint lie
in the work folder, so the same command goes on where it was stopped. Two losses: the pinball loss of the quantile head in
units of the Gaussian deviation, and the v-loss of the denoiser in the unit Gaussian space that the head's quantiles span.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..plugins.sensor_imputation.quantiles import KNOTS, LEVELS
from .cases import NOISES, Shard, shard
from .imputation_export import export
from .imputation_net import Denoiser, Encoder

Batch = dict[str, Tensor]
DRAWS = 3
"""Noise levels drawn per window and step of training."""
CELLS = 8_000
"""Cells per batch (windows x tags x rows)."""
VALIDATION = 1_000_000
"""Shards from this number on are never trained on."""
EMA = 0.9995
MEASURE = 250
"""Steps between two measurements and checkpoints."""


class Model(torch.nn.Module):
    """Both networks and the losses that train them together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.denoiser = Encoder(), Denoiser()
        self.register_buffer("levels", torch.tensor(LEVELS))
        self.register_buffer("z", torch.tensor(KNOTS))

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Pinball loss, that of the Gaussian on the same cells, v-loss; each a mean over the missing cells."""
        knots, context, mix = self.encoder(batch["cells"], batch["relation"])
        weight = batch["target"] * batch["std"].clamp(1e-3, 2).sqrt()
        pinball = _mean(self.pinball(knots, batch["residual"]), weight)
        gaussian = _mean(self.pinball(self.z.expand_as(knots), batch["residual"]), weight)
        clean = self.to_unit(batch["residual"], knots.detach()) * batch["target"]
        x, v, t = _diffused(clean, batch["noise"])
        # A window's draws become windows of their own: the denoiser knows one time per window.
        many = [a.repeat_interleave(DRAWS, 0) for a in (context, mix, batch["missing"])]
        out = self.denoiser(x.flatten(0, 1)[:, None], t.flatten(), *many)[:, 0].unflatten(0, (-1, DRAWS))
        return pinball, gaussian, _mean((out - v) ** 2, batch["target"][:, None].expand_as(v))

    def pinball(self, knots: Tensor, truth: Tensor) -> Tensor:
        """Twice the pinball loss averaged over the levels (an estimate of the CRPS), per cell."""
        d = truth[..., None] - knots
        return 2 * torch.maximum(self.levels * d, (self.levels - 1) * d).mean(-1)

    def to_unit(self, residual: Tensor, knots: Tensor) -> Tensor:
        """The inverse of `quantiles.to_residual`, cut at +-4."""
        i = (torch.searchsorted(knots.contiguous(), residual[..., None].contiguous()) - 1).clamp(0, len(LEVELS) - 2)
        low, high = knots.gather(-1, i)[..., 0], knots.gather(-1, i + 1)[..., 0]
        z_low, z_high = self.z[i[..., 0]], self.z[i[..., 0] + 1]
        return (z_low + (residual - low) / (high - low).clamp_min(1e-4) * (z_high - z_low)).clamp(-4, 4)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum()


def _diffused(clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """clean (W, K, L), noise (W, NOISES, K, L) -> x and v (W, DRAWS, K, L), t (W, DRAWS) uniform in 0..1."""
    turn = torch.nn.functional.normalize(torch.randn(len(clean), DRAWS, NOISES), dim=-1)
    eps = torch.einsum("wdn,wnkl->wdkl", turn, noise)
    t = torch.rand(len(clean), DRAWS)
    t[:, 0] = 1 - 0.02 * t[:, 0]  # the first step starts from noise alone and matters most
    alpha, sigma = (f(t * (math.pi / 2))[..., None, None] for f in (torch.cos, torch.sin))
    x0 = clean[:, None]
    return alpha * x0 + sigma * eps, alpha * eps - sigma * x0, t


# ------------------------------------------------------------------ cases
class Pool:
    """Cases by number of tags, in memory and as files in `folder`."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        paths = sorted(folder.glob("*.npz"))
        self.shards, self.next = [_loaded(p) for p in paths[-limit:]], len(paths)

    def grow(self) -> None:
        """Makes one more shard, unless a helping process has; the oldest leaves the memory where there are too many."""
        path = self.folder / f"{self.next:06}.npz"
        if not path.exists():
            made = shard(self.next)
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as file:
                np.savez(file, **made)  # type: ignore[arg-type]
            part.rename(path)
        self.next += 1
        self.shards = [*self.shards, _loaded(path)][-self.limit :]

    def batch(self, rng: np.random.Generator) -> Batch:
        """About CELLS cells of one number of tags, from several shards."""
        first = self.shards[rng.integers(len(self.shards))]
        tags = first["relation"].shape[1]
        same = [s for s in self.shards if s["relation"].shape[1] == tags]
        size = max(8, CELLS // (tags * first["cells"].shape[2]))
        chosen = [same[i] for i in rng.integers(len(same), size=min(8, len(same)))]
        each = -(-size // len(chosen))
        picks = [rng.integers(len(s["relation"]), size=each) for s in chosen]
        return _tensors({k: np.concatenate([s[k][p] for s, p in zip(chosen, picks)]) for k in first})


def _loaded(path: Path) -> Shard:
    with np.load(path) as file:
        return {k: file[k] for k in file.files}


def _tensors(arrays: Shard) -> Batch:
    return {k: torch.from_numpy(a.astype(np.float32)) for k, a in arrays.items()}


def _held_out(number: int) -> Batch:
    return _tensors({k: a[::8] for k, a in shard(VALIDATION + number).items()})


def validate(model: Model, held_out: list[Batch]) -> tuple[float, float]:
    """CRPS of the quantile head over the Gaussian's, and v-loss, on plants never trained on."""
    torch.manual_seed(0)
    with torch.no_grad():
        ratios = [(p / g, v) for p, g, v in (model.losses(b) for b in held_out)]
    return tuple(float(torch.stack(x).mean()) for x in zip(*ratios))  # type: ignore[return-value]


# ------------------------------------------------------------------ the training itself
def begin_from(model: Model, earlier: dict[str, Tensor]) -> None:
    """The weights of an earlier training; features of a cell that it did not know yet, the last ones, begin at 0."""
    entry = "encoder.enter.weight"
    known = earlier[entry]
    fresh = torch.zeros_like(model.encoder.enter.weight)
    fresh[:, : known.shape[1]] = known
    model.load_state_dict(earlier | {entry: fresh})


def train(work: Path, minutes: float, shards: int, start: Path | None = None, lr: float = 2e-3) -> None:
    """Trains until `minutes` of training (over all starts) are used up; leaves its checkpoint in `work`.

    start: the checkpoint of an earlier training to take the weights from.
    """
    torch.set_num_threads(1)
    pool, held_out = Pool(work / "shards", limit=300), [_held_out(i) for i in range(8)]
    while len(pool.shards) < shards:
        pool.grow()
        print(f"\rcases: shard {len(pool.shards)} of {shards}", end="", flush=True)
    model = Model()
    if start:
        begin_from(model, torch.load(start, weights_only=True)["mean"])
        lr /= 2
    print(f"\n{sum(p.numel() for p in model.parameters()):,} parameters")
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    mean, used, cpu, step, checkpoint = copy.deepcopy(model), 0.0, 0.0, 0, work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        used, cpu, step = state["used"], state["cpu"], state["step"]
    rng, last, last_cpu = np.random.default_rng(step), time.monotonic(), time.process_time()
    torch.manual_seed(step)
    shown = torch.zeros(3)
    while used < minutes * 60 or step % MEASURE:
        share = min(1.0, used / (minutes * 60))
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 300) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * share)))
        pinball, gaussian, v = model.losses(pool.batch(rng))
        optimiser.zero_grad()
        (pinball + 0.5 * v).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(mean.parameters(), model.parameters()):
                a.lerp_(b, 1 - keep)
            shown = 0.98 * shown + 0.02 * torch.stack([pinball, gaussian, v])
        now, now_cpu = time.monotonic(), time.process_time()
        used, cpu, last, last_cpu = used + now - last, cpu + now_cpu - last_cpu, now, now_cpu
        if step % 40 == 0 and share < 0.9:
            pool.grow()
        if step % MEASURE == 0:
            ratio, v_loss = validate(mean, held_out)
            torch.manual_seed(step)
            print(
                f"step {step:6} {used / 60:6.1f} of {minutes:g} min ({cpu / 60:.1f} of CPU)"
                f" | crps/gauss {shown[0] / shown[1]:.4f} v {shown[2]:.4f}"
                f" | never seen: crps/gauss {ratio:.4f} v {v_loss:.4f}",
                flush=True,
            )
            state = {"model": model.state_dict(), "mean": mean.state_dict(), "optimiser": optimiser.state_dict()}
            state |= {"used": used, "cpu": cpu, "step": step, "measured": (ratio, v_loss)}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").rename(checkpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle to write")
    parser.add_argument("--work", type=Path, default=Path("runs/imputation"), help="folder of shards and checkpoint")
    parser.add_argument("--minutes", type=float, default=60, help="minutes of training on one core")
    parser.add_argument("--shards", type=int, default=120, help="shards of cases made before the training starts")
    parser.add_argument("--start", type=Path, help="checkpoint of an earlier training to take the weights from")
    parser.add_argument("--version", default="0.1.0", help="version of the bundle")
    parser.add_argument(
        "--now", action="store_true", help="write the bundle from the checkpoint as it stands, without training"
    )
    args = parser.parse_args()
    if not args.now:
        train(args.work, args.minutes, args.shards, args.start)
    state = torch.load(args.work / "checkpoint.pt", weights_only=True)
    model = Model()
    model.load_state_dict(state["mean"])
    summary = {
        "data": "random synthetic plants (training/plants.py); no recording of a real plant",
        "command": f"python -m denoised.training.imputation --out {args.out} --minutes {args.minutes:g} --shards {args.shards}",
        "steps": state["step"],
        "cpu_minutes": round(state["cpu"] / 60, 1),
        "never_seen_plants": {
            name: round(value, 4) for name, value in zip(("crps_over_gaussian", "v_loss"), state["measured"])
        },
    }
    if args.start:
        summary["start"] = str(args.start)
    export(model.encoder, model.denoiser, args.out, summary, args.version)
    print(f"{args.out}: written, onnxruntime agrees with torch")


if __name__ == "__main__":
    main()
