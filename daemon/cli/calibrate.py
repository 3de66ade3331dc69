"""`denoised calibrate`: measures this board's operating points and stores the frontier that is worth choosing from."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...config.load import load as load_config
from ...config.refusal import Refusal
from ...config.tree import Config
from ...engines.bundle import BundleError, OperatingPoint
from ...engines.engine import EngineError
from ...plugins.kind import load_kinds
from ..board.board import find_board
from ..board.energy import Meter
from ..calibration import Calibration, fingerprint, load, path_of, store
from ..core.frontier import Point, Quality, Speed, frontier, points
from ..models import find_models
from .progress import Progress

if TYPE_CHECKING:
    from ..measure import Measurer

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised calibrate --help`."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the daemon's configuration; absent: its defaults and shipped models alone"
    )
    parser.add_argument(
        "--minutes", type=float, default=5.0, metavar="N", help="for all models together (5); the next run does what is left"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def main(args: argparse.Namespace) -> int:
    """0 where every model has a frontier now, 1 where one has not."""
    if not args.minutes > 0:
        print(f"denoised calibrate: --minutes: expected more than 0, found {args.minutes:g}", file=sys.stderr)
        return 2
    config = load_config(args.config) if args.config else Config()
    models, notes = find_models(config)
    bundles = [b for of_kind in models.values() for b in of_kind]
    compute_as_the_worker()
    from ..measure import Measurer, disturbance

    if found := disturbance():
        print(f"denoised calibrate: {found}", file=sys.stderr)
    kinds, board = load_kinds(), find_board(config.board)
    meter, mode = Meter(board), board.read(time.monotonic()).mode
    until, done = time.monotonic() + args.minutes * 60, list[Calibration]()
    for number, bundle in enumerate(bundles):
        manifest, path, now = bundle.manifest, path_of(config, bundle), time.monotonic()
        if manifest.kind not in kinds:
            notes.append(f"{manifest.name}: no job kind '{manifest.kind}' is installed")
            continue
        try:
            measurer = Measurer(config, kinds[manifest.kind], bundle, meter)
            begun = _begun(
                path,
                Calibration.empty(
                    manifest, fingerprint(config, bundle, board.traits.name, mode), measurer.method, measurer.idle_w()
                ),
            )
            made = _calibrate(measurer, begun, path, now + (until - now) / (len(bundles) - number))
        except KeyboardInterrupt:
            print(f"interrupted; what was measured is kept in {path.parent}, the same command goes on", file=sys.stderr)
            raise
        except (BundleError, EngineError, Refusal, OSError) as e:
            notes.append(f"{manifest.name}: {e}")
            continue
        done.append(made)
        if not made.complete:
            notes.append(f"{manifest.name}: not all was measured in {args.minutes:g} min; the same command goes on")
        if not args.json:
            print(_words(made, path))
    if args.json:
        print(json.dumps({"models": [asdict(c) for c in done], "notes": notes}, indent=2))
    else:
        for note in notes:
            print(f"denoised calibrate: {note}", file=sys.stderr)
    return 0 if len(done) == len(bundles) and all(c.frontier for c in done) else 1


def compute_as_the_worker() -> None:
    """One thread for numpy's own products, as the supervisor gives its worker; heeded only before numpy is imported."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _begun(path: Path, fresh: Calibration) -> Calibration:
    """What an earlier run that was not finished has measured the same way on the same board, else `fresh`."""
    left, _ = load(_partial(path), fresh.fingerprint)
    return left if left is not None and left.method == fresh.method else fresh


def _partial(path: Path) -> Path:
    """Where an unfinished calibration lies, so that a finished one stays in use until the next is."""
    return path.with_suffix(".partial")


def _calibrate(measurer: Measurer, begun: Calibration, path: Path, until: float) -> Calibration:
    """Goes on from `begun`, keeping every figure at once; stores the frontier and its plot, also when interrupted."""
    from .plot import plot

    now = begun
    store(_partial(path), now)  # a folder that cannot be written is better known before the work
    try:
        for now in _measured(measurer, begun, until):
            store(_partial(path), now)
    finally:
        measurer.close()
        now = replace(now, frontier=frontier(points(now.qualities, now.speeds)))
        used = load(path, now.fingerprint)[0]
        if now.frontier and (now.complete or used is None or not used.complete):
            store(path, now)
            plot(now, path.with_suffix(".png"))
        if now.complete:
            _partial(path).unlink(missing_ok=True)
    return now


def _measured(measurer: Measurer, now: Calibration, until: float) -> Iterator[Calibration]:
    """`now` with one more figure each time, up to `until` or to completeness."""
    points, ways = measurer.shipped, measurer.ways
    qualities = [(way, steps) for way in ways for steps in measurer.steps]
    # Variants one right after the other: what else the machine does meanwhile then hits all of them alike.
    speeds = [(way, batch, threads) for threads in measurer.threads for batch in measurer.batches for way in ways]
    known: set[tuple[int, ...]] = {(q.shipped, q.steps) for q in now.qualities}
    known |= {(s.shipped, s.batch, s.threads) for s in now.speeds}
    left: list[tuple[OperatingPoint, str, Callable[[], Quality | Speed]]] = []
    left += [(points[q[0]], f"{q[1]} steps", partial(measurer.quality, *q)) for q in qualities if q not in known]
    left += [(points[s[0]], f"batch {s[1]}, threads {s[2]}", partial(measurer.speed, *s)) for s in speeds if s not in known]
    total, broken = len(qualities) + len(speeds), dict[str, str]()
    with Progress(f"calibrate {now.model}") as progress:
        for number, (way, words, measure) in enumerate(left, total - len(left)):
            variant = way.variant
            if time.monotonic() >= until:
                return
            progress.show(number / total, f"{variant} {way.sampler}, {words}")
            if variant in broken:
                continue
            try:
                now = now.plus(measure())
            except EngineError as e:  # the others are worth measuring all the same
                broken[variant] = str(e)
                log.error("%s: variant %s is left out: %s", now.model, variant, e)
                continue
            yield now
    if len(broken) == len({points[way].variant for way in ways}):
        raise EngineError(next(iter(broken.values())))
    yield replace(now, complete=not broken)


def _words(made: Calibration, path: Path) -> str:
    how = f"{made.model} {made.version}: {len(made.frontier)} operating points worth choosing; energy {made.method.energy}"
    return "\n".join([how, *table(made.frontier), f"  {path}, and a picture of it beside"])


def table(frontier: Sequence[Point]) -> list[str]:
    """Lines of a table, its header first."""
    header = f"  {'variant':8} {'sampler':15} {'steps':>5} {'batch':>5} {'threads':>7} {'ms/step':>9} {'ms/sample':>9}"
    lines = [f"{header} {'J/sample':>9} {'distance':>9}"]
    for p in frontier:
        place = f"  {p.variant:8} {p.sampler:15} {p.steps:5} {p.batch:5} {p.threads:7}"
        lines.append(f"{place} {p.step_ms:9.2f} {p.sample_ms:9.2f} {p.energy_j:9.4f} {p.distance:9.4f}")
    return lines
