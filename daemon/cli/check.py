"""`denoised check`: reads a configuration as `denoised run` would, and starts nothing."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from ...config.error import ConfigError
from ...config.load import config_files, load
from ...plugins.kind import load_kinds
from ..core.check import check_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised check --help`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the configuration; conf.d/*.yaml beside it are merged over it")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def main(args: argparse.Namespace) -> int:
    """0 where the configuration is good, 2 where it is not."""
    try:
        load(args.file, partial(check_config, kinds=load_kinds()))
        errors = []
    except ConfigError as e:
        errors = list(e.errors)
    files = [str(f) for f in config_files(args.file)]
    if args.json:
        print(json.dumps({"ok": not errors, "files": files, "errors": [e.as_json() for e in errors]}, indent=2))
    elif errors:
        print(*errors, sep="\n")
        print(f"{len(errors)} error{'s' if len(errors) > 1 else ''}", file=sys.stderr)
    else:
        print(f"ok: {', '.join(files)}")
    return 2 if errors else 0
