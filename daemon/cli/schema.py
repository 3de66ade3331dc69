"""`denoised schema`: the JSON Schema of the configuration."""

from __future__ import annotations

import argparse
import json

from ...config.schema import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def main(args: argparse.Namespace) -> int:
    """Always 0."""
    print(json.dumps(schema(), indent=2))
    return 0
