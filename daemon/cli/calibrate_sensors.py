"""`denoised calibrate-sensors`: learns a group of sensors from its history in a CSV file, for every later job of these tags."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.load import load as load_config
from ...config.refusal import Refusal
from ...config.tree import Config
from ...config.typed import did_you_mean
from ...engines.bundle import BundleError
from ...engines.engine import EngineError, open_engine
from ..models import find_models, site_of
from .calibrate import compute_as_the_worker
from .progress import Progress

if TYPE_CHECKING:
    import numpy as np

_KIND = "sensor-imputation"
_LEAST, _MOST = 48, 100_000
"""Rows; of a longer history the newest count."""
_MISSING = ("", "nan", "null", "none", "na", "n/a", "-")
_KEEP = 0.5


class Unreadable(ValueError):
    """What is wrong with a CSV file, and where."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised calibrate-sensors --help`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration; absent: its defaults")
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        action="append",
        required=True,
        help="history: a header of tag names, one row per sample period, empty where missing; again for another recording",
    )
    parser.add_argument(
        "--group",
        metavar="NAME",
        help="a group of the configuration: its tags alone, at its period; absent: every column of numbers",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=_KEEP,
        metavar="F",
        help=f"what an earlier run learnt weighs this much of what it did ({_KEEP:g}); 0 forgets it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def main(args: argparse.Namespace) -> int:
    """0 where the group is stored, 1 where it cannot be learnt, 2 on bad usage."""
    if not 0 <= args.keep <= 1:
        return _error(f"--keep: expected 0 to 1, found {args.keep:g}", 2)
    config = load_config(args.config) if args.config else Config()
    group = config.sensors.get(args.group) if args.group else None
    if args.group and group is None:
        return _error(f"--group: no group '{args.group}' under sensors{did_you_mean(args.group, config.sensors)}", 2)
    compute_as_the_worker()
    from ...plugins.sensor_imputation import site, stored

    began = time.monotonic()
    folder = site_of(config, {}).calibrations
    assert folder is not None
    path = folder / f"{args.group or args.csv[0].stem}.npz"
    try:
        bundle = site_of(config, find_models(config)[0]).model(_KIND, group.model if group else None)
        encoder = open_engine(bundle.verified(bundle.manifest.variants["fp32"]["encoder"]))
        tags, history = read(args.csv, list(group.tags) if group else None)
        period_ms = group.period * 1000 if group else None
        before, why = stored.load(path)
        if why:
            print(f"denoised calibrate-sensors: {why}: learnt afresh", file=sys.stderr)
        known = (
            before
            if before and (before.tags, before.period_ms, before.model_sha256) == (tags, period_ms, bundle.sha256)
            else None
        )
        if before and not known and args.keep:
            print(f"denoised calibrate-sensors: {path} is of other tags or another model: learnt afresh", file=sys.stderr)
        refreshed = known is not None and args.keep > 0
        with Progress("calibrate-sensors") as progress:
            if known and refreshed:
                parts = site.refresh(known.parts, history, encoder, args.keep, watch=progress.show)
            else:
                parts = site.learn(history, encoder, watch=progress.show)
        made = stored.Stored(tags, period_ms, bundle.sha256, parts)
        stored.store(path, made)
    except (Unreadable, Refusal, BundleError, EngineError) as e:
        return _error(str(e), 1)
    except OSError as e:
        return _error(f"{e.filename or path}: {e.strerror or e}", 1)
    told = _told(path, made, history, refreshed) | {"seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(told, indent=2) if args.json else _words(told))
    return 0


def _error(message: str, status: int) -> int:
    print(f"denoised calibrate-sensors: {message}", file=sys.stderr)
    return status


def _told(path: Path, made: Any, history: Sequence[np.ndarray], refreshed: bool) -> dict[str, Any]:
    import numpy as np

    from ...plugins.sensor_imputation.response import rows_needed

    rows = sum(map(len, history))
    holes = float(np.mean([np.isnan(column).mean() for s in history for column in s.T]))
    cycles = sorted({p.calibration.season.period for p in made.parts if p.calibration.season})
    return {
        "path": str(path),
        "tags": list(made.tags),
        "rows": rows,
        "missing": round(holes, 4),
        "refreshed": refreshed,
        "cycles": cycles,
        "widths": rows >= rows_needed(),
    }


def _words(told: dict[str, Any]) -> str:
    cycles = " and ".join(map(str, told["cycles"]))
    lines = [
        f"{len(told['tags'])} tags, {told['rows']} rows, {told['missing']:.1%} missing; "
        + (f"a cycle of {cycles} rows; " if cycles else "no cycle found; ")
        + (f"what was known before is refreshed; {told['seconds']} s" if told["refreshed"] else f"{told['seconds']} s")
    ]
    if not told["widths"]:
        lines.append("  too little history to see how wide the bands must be here; more rows make them honest")
    return "\n".join([*lines, f"  {told['path']}"])


# ------------------------------------------------------------------ the file
def read(paths: Iterable[Path], wanted: Sequence[str] | None) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Tags and one array (T, K) per file, NaN = missing; `Unreadable` says file, line and column.

    wanted: these columns alone; None: every column that holds numbers, the same in all files.
    """
    import numpy as np

    tags: tuple[str, ...] | None = tuple(wanted) if wanted else None
    history: list[np.ndarray] = []
    for path in paths:
        header, rows = _rows(path)
        if tags is None:
            tags = tuple(name for i, name in enumerate(header) if _is_measurement(row[i] for row in rows))
            if not tags:
                raise Unreadable(f"{path}: no column holds numbers; found {', '.join(header)}")
        for tag in tags:
            if tag not in header:
                raise Unreadable(f"{path}: no column '{tag}'{did_you_mean(tag, header)}; found {', '.join(header)}")
        places = [header.index(tag) for tag in tags]
        table = [
            [_number(path, i, header[k], row[k]) for k in places]
            for i, row in enumerate(rows[-_MOST:], max(0, len(rows) - _MOST) + 2)
        ]
        history.append(np.array(table, np.float64).reshape(len(table), len(places)))
    assert tags is not None
    rows_in_all = sum(map(len, history))
    if rows_in_all < _LEAST:
        raise Unreadable(f"a history of {rows_in_all} rows is too short; expected at least {_LEAST}")
    for k, tag in enumerate(tags):
        if all(np.isnan(s[:, k]).all() for s in history):
            raise Unreadable(f"column '{tag}' holds no measurement; leave it out, or send a history in which it was measured")
    return tags, history


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and cells, every row as long as the header; comma, semicolon or tab, whichever the header has most of."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Unreadable(f"{path}: not UTF-8 text ({e.reason} at byte {e.start})") from e
    first = text.partition("\n")[0]
    rows = list(csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count)))
    if not rows or not rows[0]:
        raise Unreadable(f"{path}: empty; expected a header of tag names and rows of numbers")
    header = [name.strip() for name in rows[0]]
    for name in header:
        if header.count(name) > 1:
            raise Unreadable(f"{path}:1: column '{name}' stands here twice")
    for i, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise Unreadable(f"{path}:{i}: expected {len(header)} cells as in the header, found {len(row)}")
    return header, rows[1:]


def _is_measurement(column: Iterable[str]) -> bool:
    """Whether its first cell that is not empty is a number: times as text are not."""
    first = next((cell for cell in column if cell.strip().lower() not in _MISSING), "")
    try:
        return math.isfinite(float(first))
    except ValueError:
        return False


def _number(path: Path, line: int, column: str, cell: str) -> float:
    if cell.strip().lower() in _MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        raise Unreadable(f"{path}:{line}: column '{column}': expected a number or nothing, found '{cell[:40]}'") from None
    return value if math.isfinite(value) else math.nan
