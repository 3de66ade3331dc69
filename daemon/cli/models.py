"""`denoised models`: the model bundles of this gateway."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...config.load import load
from ...config.tree import Config
from ...engines.bundle import Bundle, BundleError
from ..models import find_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised models --help`."""
    parser.add_argument("what", choices=("list", "verify"), help="list: what is there; verify: every file against its sum")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration; absent: shipped models alone")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def main(args: argparse.Namespace) -> int:
    """0 where all is well, 1 where a bundle is damaged or left out."""
    models, problems = find_models(load(args.config) if args.config else Config())
    bundles = [b for of_kind in models.values() for b in of_kind]
    if args.what == "verify":
        for bundle in bundles:
            try:
                bundle.verify()
            except BundleError as e:
                problems.append(str(e))
    if args.json:
        print(json.dumps({"models": [_facts(b) for b in bundles], "problems": problems}, indent=2))
    else:
        for bundle in bundles:
            m = bundle.manifest
            print(f"{m.name} {m.version}  {m.kind}  {bundle.sha256[:12]}  {bundle.folder}")
        for problem in problems:
            print(f"denoised models: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _facts(bundle: Bundle) -> dict[str, object]:
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
