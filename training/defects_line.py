"""`denoised-train defects`: from pictures of a product line to a bundle that verifies and a report to judge it by.

Looks through the pictures first, then trains, makes the gate's reference, and draws with the finished bundle on the good
pictures for the report. Stopped at any place, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..engines.bundle import read_bundle
from . import defects, defects_check, defects_gate, defects_quality

GATE_STEPS = 300
"""Of training, for the detector of each fold: a minute or two in all."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="denoised-train defects", description=__doc__.split("\n\n")[1])
    parser.add_argument("--images", type=Path, required=True, help="folder of <class>/NAME.png, pictures of defects")
    parser.add_argument(
        "--masks", type=Path, help="folder of <class>/NAME.png, 255 = defect (default: NAME_mask.png beside each)"
    )
    parser.add_argument("--good", type=Path, help="folder of pictures of good parts (default: free/ in --images)")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the bundle; work/ in it keeps the state, report/ the report"
    )
    parser.add_argument("--minutes", type=float, default=8, help="CPU minutes of training on one core (default 8)")
    parser.add_argument("--name", help="name of the bundle (default: the name of the folder --out)")
    parser.add_argument("--version", default="0.1.0", help="version of the bundle")
    parser.add_argument("--licence", default="proprietary", help="licence of the weights (default: proprietary)")
    parser.add_argument("--data", default="", help="where the pictures come from, in words, for the manifest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="only look through the pictures")
    args = parser.parse_args(argv)
    good = args.good or args.images / "free"
    try:
        checked = defects_check.check(args.images, args.masks or args.images, good)
        for defect in checked.classes:
            print("{}: {} pictures, {} parts".format(defect, *checked.count(defect)))
        print(f"good: {len(checked.good)} pictures", *checked.notes, sep="\n", flush=True)
        if args.check:
            return 0
        about = defects.About(args.name or args.out.resolve().name, args.version, args.licence, args.data)
        train(checked, good, args.out, args.minutes, about, args.seed)
    except defects_check.Flawed as e:
        print(f"error: {e}\n{len(e.flaws)} to mend; nothing was trained", file=sys.stderr)
        return 1
    except (OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def train(checked: defects_check.Checked, good: Path, out: Path, minutes: float, about: defects.About, seed: int) -> None:
    """The bundle and the report in `out`."""
    began = time.process_time()
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    kept, mine = work / "pictures.sha256", defects_check.identity(checked)
    if kept.exists() and kept.read_text() != mine:
        raise ValueError(f"{work}: was begun with other pictures; take another --out, or remove this folder to begin again")
    kept.write_text(mine)
    images = defects_check.stage(checked, work / "pictures")
    defects.train(images, good, out, minutes, about, seed=seed)
    reference = defects_gate.make(out, images, good, None, GATE_STEPS, seed)
    bundle = read_bundle(out)
    defects_quality.report(bundle, checked, reference, out / "report", (time.process_time() - began) / 60)
    bundle.verify()
    size = sum(bundle.file(name).stat().st_size for name in bundle.sums)
    print(f"report: {out / 'report' / 'report.md'}")
    print(f"bundle {about.name} {about.version} in {out}: {len(bundle.sums)} files, {size / 1e6:.1f} MB, every sum verified.")
    print("It is ready to be signed and installed; work/ and report/ are no part of it and hold pictures of yours.")


if __name__ == "__main__":
    sys.exit(main())
