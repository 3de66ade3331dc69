"""Ten thousand jobs through the real daemon, and what they leave behind: `python bench/soak.py [--jobs N]`, or `make soak`.

Prints what each process grew by, from after its warm-up to the end (a straight line through the readings), what the daemon
takes when it is idle, and, with --cycles, what the supervisor keeps of workers that were loaded and unloaded.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
from raw_mqtt import RawClient
from rig import Daemon, idle, pss_mb, request, row, running, wait_for, window

_UNDER_WAY = 8
"""Jobs that wait at once, so that the daemon is never idle."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="sensor jobs to run (default 10000)")
    parser.add_argument("--cycles", type=int, default=50, help="times that the worker is ended and loaded again (default 50)")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS", help="how long to watch it idle (default 60)")
    args = parser.parse_args()
    row("what", "measured", "", "", "wanted")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name, running(Path(name)) as daemon:
        client = daemon.client("soak", "jobs/+/result")
        began = time.monotonic()
        growth(daemon, client, args.jobs)
        row("jobs per second, all told", f"{args.jobs / (time.monotonic() - began):.0f} /s", "", "", "")
        time.sleep(5.0)
        found = idle(daemon, args.idle)
        row(f"idle: CPU over {args.idle:.0f} s", f"{found.cpu_percent:.2f} %", "", "", "<= 0.2 %")
        row("idle: bytes written per minute", f"{found.written_bytes_per_min:.0f}", "", "", "0")
        row("idle: PSS of all processes", f"{found.pss_mb:.1f} MB", "", "", "<= 80 MB")
        if args.cycles:
            cycles(daemon, client, args.cycles)


def growth(daemon: Daemon, client: RawClient, jobs: int) -> None:
    """Runs the jobs; the first tenth is the warm-up."""
    params = {**window(12), "samples": 1}
    pids = {}
    readings: dict[int, list[tuple[int, float, float]]] = {}
    sent = 0
    for done in range(jobs):
        while sent < min(jobs, done + _UNDER_WAY):
            request(client, f"s-{sent}", params=params)
            sent += 1
        client.receive()
        if done >= jobs // 10 and (done % max(1, jobs // 200) == 0 or done == jobs - 1):
            pids = daemon.pids()
            for pid in pids:
                readings.setdefault(pid, []).append((done, *pss_mb(pid)))
    for pid, what in pids.items():
        n, pss, private = np.array(readings[pid]).T
        per_job = np.polyfit(n, private, 1)[0]
        row(
            f"{what}: growth over {jobs} jobs (private memory)",
            f"{per_job * jobs:+.2f} MB",
            f"{private[0]:.1f} -> {private[-1]:.1f} MB",
            f"{len(n)} pts",
            "<= 0.5 MB",
        )


def cycles(daemon: Daemon, client: RawClient, count: int) -> None:
    """Ends the worker, has the next one do a job, and again: what stays with those that stay."""
    before: dict[int, float] = {}
    for n in range(count):
        for pid, what in daemon.pids().items():
            if what == "worker":
                os.kill(pid, signal.SIGKILL)
        request(client, f"cycle-{n}", params=window())
        wait_for(client, f"cycle-{n}", "done")
        if n == count // 10:
            before = {pid: pss_mb(pid)[1] for pid, what in daemon.pids().items() if what != "worker"}
    for pid, mb in before.items():
        now = pss_mb(pid)[1]
        what = daemon.pids()[pid]
        row(f"{what}: growth over {count - count // 10} loads", f"{now - mb:+.2f} MB", f"{mb:.1f} -> {now:.1f} MB", "", "")


if __name__ == "__main__":
    main()
