"""`denoised job`: cancels, pauses or resumes a job of a running daemon."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...config.load import load
from ..core.intake import ID
from ..core.job import FINAL

_WANTED = {"cancel": FINAL, "pause": ("paused", *FINAL), "resume": ("accepted", "running", *FINAL)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised job --help`."""
    parser.add_argument("what", choices=tuple(_WANTED), help="each takes effect at the job's next denoising step")
    parser.add_argument("id", metavar="ID", help="the job's id")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="give up waiting after this (30)")
    parser.add_argument("--json", action="store_true", help="print the last reply as JSON")


def main(args: argparse.Namespace) -> int:
    """0 where the job is as wanted, 1 where it is not (it may be over, or unknown), 2 on bad usage."""
    if not ID.fullmatch(args.id):
        print(f"denoised job: '{args.id}' is no job id: 1 to 64 of A-Z a-z 0-9 . _ -", file=sys.stderr)
        return 2
    config = load(args.config)
    from ..client import Client, NoBroker

    job = f"{config.base}/jobs/{args.id}"
    try:
        with Client(config.mqtt, [f"{job}/event", f"{job}/result"]) as client:
            client.publish(f"{job}/{args.what}", b"")
            for message in client.messages(args.timeout):
                reply: dict[str, Any] = json.loads(message.payload)
                if reply["state"] in _WANTED[args.what]:
                    return _done(args, reply)
    except NoBroker as e:
        print(f"denoised job: {e}", file=sys.stderr)
        return 1
    print(f"denoised job: no word of job '{args.id}' in {args.timeout:g} s; it is over, or was never taken", file=sys.stderr)
    return 1


def _done(args: argparse.Namespace, reply: dict[str, Any]) -> int:
    print(json.dumps(reply, indent=2) if args.json else f"{reply['id']} {reply['state']}")
    over = reply["state"] in FINAL
    return 1 if over and (args.what != "cancel" or reply["state"] != "cancelled") else 0
