"""`denoised models`: the model bundles of this gateway."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...config.load import load
from ...config.tree import Config
from ...config.typed import did_you_mean
from ...engines.bundle import Bundle, BundleError
from ..models import find_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised models --help`."""
    words = "list: what is there; verify: every file against its sum; bench: time, energy and quality on this machine"
    parser.add_argument("what", choices=("list", "verify", "bench"), help=words)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="this model alone")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration; absent: shipped models alone")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def main(args: argparse.Namespace) -> int:
    """0 where all is well, 1 where a bundle is damaged, left out or does not run, 2 where there is no such model."""
    config = load(args.config) if args.config else Config()
    models, problems = find_models(config)
    bundles = [b for of_kind in models.values() for b in of_kind]
    if args.model is not None:
        names = [b.manifest.name for b in bundles]
        if args.model not in names:
            print(f"denoised models: no model '{args.model}'{did_you_mean(args.model, names)}", file=sys.stderr)
            return 2
        bundles = [b for b in bundles if b.manifest.name == args.model]
    if args.what == "bench":
        from .models_bench import bench

        benched, wrong = bench(config, bundles)
        problems += wrong
        facts, lines = [b.as_json() for b in benched], [line for b in benched for line in b.lines()]
    else:
        if args.what == "verify":
            problems += _damages(bundles)
        facts, lines = [_facts(b) for b in bundles], [_line(b) for b in bundles]
    if args.json:
        print(json.dumps({"models": facts, "problems": problems}, indent=2))
    else:
        print(*lines, sep="\n")
        for problem in problems:
            print(f"denoised models: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _damages(bundles: list[Bundle]) -> list[str]:
    damages = []
    for bundle in bundles:
        try:
            bundle.verify()
        except BundleError as e:
            damages.append(str(e))
    return damages


def _line(bundle: Bundle) -> str:
    m = bundle.manifest
    return f"{m.name} {m.version}  {m.kind}  {bundle.sha256[:12]}  {bundle.folder}"


def _facts(bundle: Bundle) -> dict[str, Any]:
    m = bundle.manifest
    return {
        "name": m.name,
        "version": m.version,
        "kind": m.kind,
        "licence": m.licence,
        "sha256": bundle.sha256,
        "folder": str(bundle.folder),
        "classes": list(m.classes),
        "variants": list(m.variants),
    }
