"""`denoised flight`: what the flight recorder wrote when something broke."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...config.load import load
from ..recorder import flights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised flight --help`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--list", action="store_true", help="name the records, the newest first")
    parser.add_argument("--number", type=int, default=1, metavar="N", help="show the N-th of the list (1, the newest)")
    parser.add_argument("--json", action="store_true", help="print it as JSON lines, as it is on the disk")


def main(args: argparse.Namespace) -> int:
    """0 where there is a record, 1 where there is none."""
    folder = Path(load(args.config).state_dir) / "flight"
    found = flights(folder)
    if not 1 <= args.number <= len(found):
        print(f"denoised flight: {len(found)} records in {folder}; nothing has broken since they began", file=sys.stderr)
        return 1
    if args.list:
        for n, path in enumerate(found, 1):
            print(f"{n}  {path.name}  {_fault(path)}")
        return 0
    text = found[args.number - 1].read_text()
    print(text if args.json else "\n".join(map(_line, text.splitlines())))
    return 0


def _fault(path: Path) -> str:
    with path.open() as f:
        return str(json.loads(f.readline())["text"])


def _line(text: str) -> str:
    """One record as a person reads it."""
    record = json.loads(text)
    said = record.get("text")
    if said is None:
        said = json.dumps({k: v for k, v in record.items() if k not in ("time", "level")})
    return f"{record['time']}  {record['level']:8s} {said}"
