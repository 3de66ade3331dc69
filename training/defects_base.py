"""Trains the weights that every defect model begins with, from good pictures and procedural defects alone:

    python -m denoised.training.defects_base --good DIR --out training/defects_base.npz [--minutes 30]

No real defect is in them. `python -m denoised.training.defects` starts from them and adds the real ones that it is given.
Stopping and starting again goes on where it was; the state is in OUT's folder, `defects_base/`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from . import defects_data, defects_draw
from .defects_fit import Draw, fit
from .defects_net import DefectNet, save_weights

BASE = Path(__file__).with_name("defects_base.npz")
"""The weights that ship."""
RATE = 1.5e-3


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.defects_base", description=__doc__.split("\n\n")[0])
    parser.add_argument("--good", type=Path, required=True, help="folder of good pictures; procedural metal parts are added")
    parser.add_argument("--out", type=Path, default=BASE, help="default: the file that ships")
    parser.add_argument("--minutes", type=float, default=30, help="CPU minutes on one core (default 30)")
    parser.add_argument("--windows", type=int, default=15000, help="windows to paint beforehand (default 15000, 1 minute)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    work = args.out.with_suffix("")
    work.mkdir(parents=True, exist_ok=True)
    classes = tuple(defects_draw.PAINTERS)
    kept = work / "pool.npz"
    if not kept.exists():
        good = defects_data.read_good(args.good)
        print(f"painting on {len(good)} good pictures and on metal parts", flush=True)
        painted = defects_data.painted(good, classes, {}, args.windows, np.random.default_rng(args.seed))
        np.savez(kept, **defects_data.columns(painted))  # type: ignore[arg-type]
    with np.load(kept) as f:
        pool = dict(f)
    draw = Draw(pool, defects_data.strength_table(pool, classes), classes, dict.fromkeys(classes, 0.0))
    fitted = fit(DefectNet(len(classes)), draw, args.minutes, work / "state.pt", args.seed, RATE)
    save_weights(fitted.net, classes, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {fitted.steps} steps, {fitted.cpu_s / 60:.1f} CPU minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
