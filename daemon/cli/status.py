"""`denoised status`: one look at a running daemon, through the bus."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...config.load import load
from .panel import supply


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised status --help`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(args: argparse.Namespace) -> int:
    """0 where the daemon is online, 1 where it is not."""
    config = load(args.config)
    from ..client import Client, NoBroker

    seen: dict[str, Any] = {}
    try:
        with Client(config.mqtt, [f"{config.base}/status", f"{config.base}/telemetry"]) as client:
            for message in client.messages(2 * config.telemetry.period + 1):
                seen[message.topic.rpartition("/")[2]] = json.loads(message.payload)
                if seen.get("status", {}).get("state") == "offline" or len(seen) == 2:
                    break
    except NoBroker as e:
        print(f"denoised status: {e}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(seen, indent=2))
    else:
        print(_words(config.base, seen))
    return 0 if seen.get("status", {}).get("state") == "online" else 1


def _words(base: str, seen: dict[str, Any]) -> str:
    birth, now = seen.get("status"), seen.get("telemetry")
    if birth is None:
        return f"{base}: never seen at this broker; is 'denoised run' started with this config?"
    if birth["state"] != "online":
        return f"{base}: {birth['state']}"
    lines = [f"{base}: online since {birth['started']}, version {birth['version']}, {birth['board']}"]
    lines += [f"  PROBLEM {p['about']}: {p['message']}" for p in birth["problems"]]
    lines += [f"  model   {m['name']} {m['version']} ({m['kind']})" for m in birth["models"]]
    if now is None:
        return "\n".join([*lines, "  no telemetry yet"])
    queue, memory = now["queue"], now["memory_mb"]
    running = ", ".join(f"{j['id']} ({j['kind']}, {j['state']})" for j in now["running"]) or "nothing"
    lines.append(f"  running {running}")
    waiting = sum(now["outbox"]["waiting"].values())
    lines.append(f"  queue   {queue['jobs']} of {queue['max_jobs']} jobs, {waiting} messages to deliver")
    lines.append("  jobs    " + (", ".join(f"{n} {state}" for state, n in now["jobs"].items()) or "none yet"))
    worker, opens = now["worker"], f" ({now['worker']['opens']})" if now["worker"]["opens"] else ""
    lines.append(f"  worker  {worker['state']}{opens}, {worker['backend']}, {', '.join(worker.get('providers', ()))}")
    for build in (b for b in now["builds"] if b["state"] != "done"):
        lines.append(f"  build   {build['id']}: {build['state']}, {build['progress']:.0%}, {build['phase'] or 'not begun'}")
    lines.append("  memory  " + ", ".join(f"{name} {mb} MB" for name, mb in memory.items() if mb is not None))
    disk = now["disk"]
    lines.append(f"  disk    {disk['free_mb']} MB free, {disk['written_mb_per_day']} MB written a day; clock {now['clock']}")
    lines += [f"  temp    {zone} {temp:.1f} C" for zone, temp in now["zones_c"].items() if temp is not None]
    lines.append(f"  supply  {supply(now['governor'])}")
    lines.append(f"  note    {now['note']}")
    return "\n".join(lines)
