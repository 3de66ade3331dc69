"""The command `denoised`: one verb per file of this folder (and the demo's), imported only when it is asked for.

A verb's module has `add_arguments(parser)` and `main(args) -> exit status`: 0 success, 2 bad usage or configuration,
1 failure. A new verb is one file and one row below.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from ... import __version__
from ...config.error import ConfigError

VERBS = {
    "run": (".run", "the daemon, in the foreground"),
    "check": (".check", "every error in a configuration, without starting anything"),
    "schema": (".schema", "the JSON Schema of the configuration, for editors"),
    "submit": (".submit", "send a job to a running daemon and save what it makes"),
    "job": (".job", "cancel, pause or resume a job of a running daemon"),
    "status": (".status", "one look at a running daemon"),
    "top": (".top", "a running daemon as it works, in the terminal"),
    "flight": (".flight", "what led to the last fault, from the flight recorder"),
    "calibrate": (".calibrate", "measure this board's operating points and store those worth choosing"),
    "governor": (".governor", "what the governor will do on a board in its enclosure: the real policy, a simulated board"),
    "calibrate-sensors": (
        ".calibrate_sensors",
        "learn a group of sensors from its history, for better answers and honest bands",
    ),
    "models": (".models", "the model bundles of this gateway"),
    "demo": ("...demo.command", "the main job on this machine with nothing else set up, in about a minute"),
}
"""Verb -> its module here, and what it does in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of `denoised ARGV...`."""
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except ConfigError as e:
        print(e, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `denoised schema | head`: nobody reads on, which is no failure of ours to report
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="denoised",
        description="Diffusion jobs on industrial gateways, over MQTT.",
        epilog="'denoised VERB --help' tells more. Exit status: 0 success, 2 bad usage or configuration, 1 failure.",
    )
    parser.add_argument("--version", action="version", version=f"denoised {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    wanted = next((a for a in argv if not a.startswith("-")), None)
    for name, (module_name, help_) in VERBS.items():
        verb = verbs.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        if name == wanted:
            module = importlib.import_module(module_name, __package__)
            module.add_arguments(verb)
            verb.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    return int(args.main(args))
