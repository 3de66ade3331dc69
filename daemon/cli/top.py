"""`denoised top`: a running daemon as it works, in the terminal, through the bus.

On a terminal one screen that is drawn anew with every word of the daemon; elsewhere one plain line for each telemetry.
What an older daemon does not tell is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...config.load import load
from .panel import Panel, Seen

_REDRAW = 0.25
"""Shortest time between two screens: progress may come faster than anybody reads."""
_ENTER, _LEAVE = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"
"""The terminal's other screen without a cursor (xterm control sequences), and back."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised top --help`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--once", action="store_true", help="one look in plain lines, then end")
    parser.add_argument(
        "--json", action="store_true", help="what was seen as JSON: one line for each telemetry, or with --once one"
    )


def main(args: argparse.Namespace) -> int:
    """0 where the daemon is online, and after Ctrl-C; 1 where it is not."""
    config = load(args.config)
    from ..client import Client, NoBroker

    topics = [f"{config.base}/{t}" for t in ("status", "telemetry", "jobs/+/event", "jobs/+/result", "jobs/refused")]
    seen = Seen(config.base)
    try:
        with Client(config.mqtt, topics) as client, contextlib.suppress(KeyboardInterrupt):
            if args.once:
                return _once(client, seen, 2 * config.telemetry.period + 1, args.json)
            screen = sys.stdout.isatty() and not args.json
            with _screen() if screen else contextlib.nullcontext():
                _live(client, seen, config.telemetry.period, screen, args.json)
    except NoBroker as e:
        print(f"denoised top: {e}", file=sys.stderr)
        return 1
    return 0


def _once(client: Any, seen: Seen, patience: float, as_json: bool) -> int:
    for message in client.messages(patience):
        seen.take(message.topic, message.payload, time.monotonic())
        if seen.telemetry and seen.status or seen.status.get("state") == "offline":
            break
    if as_json:
        print(seen.json())
    else:
        width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 1000
        print("\n".join(Panel(seen, time.monotonic(), colours=False).lines(width, 1000)))
    return 0 if seen.status.get("state") == "online" else 1


def _live(client: Any, seen: Seen, period: float, screen: bool, as_json: bool) -> None:
    """Until Ctrl-C."""
    drawn = 0.0
    for topic in _told(client, seen, max(0.5, min(period, 2.0))):
        now = time.monotonic()
        if screen:
            if now - drawn >= _REDRAW:
                drawn = now
                size = shutil.get_terminal_size()  # each time: the window may have another size now
                _draw(Panel(seen, now, colours=True).lines(size.columns, size.lines))
        elif topic in ("telemetry", "status"):
            print(seen.json() if as_json else Panel(seen, now, colours=False).line(), flush=True)


def _told(client: Any, seen: Seen, patience: float) -> Iterator[str]:
    """The last level of each message's topic as it comes; empty where nothing came for a while."""
    while True:
        came = False
        for message in client.messages(patience):
            came = True
            seen.take(message.topic, message.payload, time.monotonic())
            yield message.topic.rpartition("/")[2]
        if not came:
            yield ""


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _draw(lines: list[str]) -> None:
    """Over what is there, each line cleared to its end: no flicker."""
    sys.stdout.write("\033[H" + "\033[K\n".join(lines) + "\033[K\033[J")
    sys.stdout.flush()
