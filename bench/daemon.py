"""The daemon beside its limits, in one run and one table: `python bench/daemon.py [--rounds N]`, or `make bench`.

A real mosquitto on loopback, the models that ship with the package, everything interleaved with its limit so that the
machine's other load falls on both alike. A time is the 10th percentile of its rounds (and the median); a ratio is that of
the two 10th percentiles. BENCH_DIR chooses the disk.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import limits
from denoised.demo import surface
from raw_mqtt import RawClient
from rig import Daemon, idle, pss_mb, request, row, running, start, wait_for, window

_PER_COMMIT = 20
"""A broker hands on this many requests before the first is acknowledged: mosquitto's max_inflight_messages by default."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=200, help="of the request latency (default 200); the rest follows from it"
    )
    rounds = parser.parse_args().rounds
    row("what", "measured p10 (p50)", "limit p10 (p50)", "ratio", "wanted")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        readiness(folder / "ready", max(3, rounds // 20))
        (folder / "main").mkdir()
        with running(folder / "main") as daemon:
            at_rest(daemon, 20.0)
            latency(daemon, folder, rounds)
            preemption(daemon, max(5, rounds // 4))
            crash(daemon, max(3, rounds // 20))
        (folder / "unloaded").mkdir()
        with running(folder / "unloaded", engine={"unload_after": 1}) as daemon:
            time.sleep(8.0)
            row("idle, networks unloaded: PSS of all", f"{idle(daemon, 1.0).pss_mb:.1f} MB", "", "", "<= 80 MB")
        (folder / "burst").mkdir()
        with running(folder / "burst", queue={"max_jobs": 100_000}) as daemon:
            burst(daemon, folder, 15 * rounds)


def readiness(folder: Path, rounds: int) -> None:
    """READY=1 against the imports alone. No broker is there, for none is waited for."""
    folder.mkdir()
    ready, imports = [], []
    for _ in range(rounds):
        imports.append(limits.imports_s())
        process, seconds = start(folder, 1)
        ready.append(seconds)
        process.terminate()
        process.wait()
    compare("start -> READY=1", ready, imports, "bare imports", "<= 1.3 x")


def at_rest(daemon: Daemon, seconds: float) -> None:
    """Memory of each process and what it takes when nothing happens, the default telemetry included."""
    time.sleep(5.0)
    for pid, what in daemon.pids().items():
        pss, private = pss_mb(pid)
        row(f"  {what}: PSS, private", f"{pss:.1f}, {private:.1f} MB", "", "", "")
    found = idle(daemon, seconds)
    row("idle, networks loaded: PSS of all", f"{found.pss_mb:.1f} MB", "", "", "")
    row(f"idle: CPU over {seconds:.0f} s", f"{found.cpu_percent:.2f} %", "", "", "<= 0.2 %")
    row("idle: bytes written per minute", f"{found.written_bytes_per_min:.0f}", "", "", "0")


def latency(daemon: Daemon, folder: Path, rounds: int) -> None:
    """Request -> accepted and request -> result, each round beside its parts."""
    client = daemon.client("client", "jobs/+/+")
    params = window()
    trip, sync, network = limits.RoundTrip(daemon.port), limits.Sync(folder), limits.Network(params)
    payload = json.dumps({"params": params}).encode()
    accepted: list[float] = []
    result: list[float] = []
    least: list[float] = []
    all_: list[float] = []
    for n in range(rounds + 5):
        # Both come after as long a time in which broker and daemon had nothing to do: waking up costs what it costs.
        inside = network.seconds()
        durable = trip.seconds(payload[:200]) + sync.seconds(payload[:2048])
        network.seconds()
        began = time.perf_counter()
        request(client, f"l-{n}", params=params)
        wait_for(client, f"l-{n}", "accepted")
        at = time.perf_counter() - began
        wait_for(client, f"l-{n}", "done")
        if n >= 5:
            accepted.append(at)
            result.append(time.perf_counter() - began)
            least.append(durable)
            all_.append(durable + inside)
    client.close()
    compare("request -> accepted", accepted, least, "round trip + fdatasync", "<= 2.5 x")
    compare("request -> result", result, all_, "that + inside the network", "")


def preemption(daemon: Daemon, rounds: int) -> None:
    """An urgent job while a long one runs: how long until the worker begins with it.

    A result says how long the worker had the job; what is left of the time from the request on is the way there and back,
    which is measured with the same job alone, and the wait for the step in hand.
    """
    client = daemon.client("preemption", "jobs/+/+")
    params = window()
    way, waits, said = [], [], []
    for n in range(rounds):
        began = time.perf_counter()
        request(client, f"alone-{n}", params=params)
        run_ms = wait_for(client, f"alone-{n}", "done")["run_ms"]
        way.append(time.perf_counter() - began - run_ms / 1000)
    request(client, "long", "defect-synthesis", priority=1, params=picture(1000))
    steps = Steps(client, "long")
    for n in range(rounds):
        steps.watch(0.5)
        began = time.perf_counter()
        request(client, f"urgent-{n}", priority=8, params=params)
        wait_for(client, f"urgent-{n}", "running")
        said.append(time.perf_counter() - began)
        run_ms = wait_for(client, f"urgent-{n}", "done")["run_ms"]
        waits.append(time.perf_counter() - began - run_ms / 1000 - points(way)[1])
        steps.restart()
    client.publish("denoised/bench/jobs/long/cancel", b"")
    wait_for(client, "long", "cancelled")
    client.close()
    step = steps.seconds
    worst = statistics.quantiles(waits, n=20, method="inclusive")[18]
    row("urgent request -> its running event", show(said), "", "", "")
    row(
        "preemption: wait for the step, p50 (p95)",
        f"{statistics.median(waits) * 1000:.1f} ({worst * 1000:.1f}) ms",
        f"one step {step * 1000:.1f} ms",
        f"{(worst - step) * 1000:+.1f} ms",
        "<= one step + 3 ms",
    )


def crash(daemon: Daemon, rounds: int) -> None:
    """The worker is killed under a job; how long until the job runs again, against opening the networks alone."""
    client = daemon.client("crash", "jobs/+/+")
    again, load = [], []
    for n in range(rounds):
        load.append(limits.session_load_s())
        request(client, f"crash-{n}", "defect-synthesis", priority=1, params=picture(1000))
        while wait_for(client, f"crash-{n}", "running").get("step", 0) < 1:
            pass
        (worker,) = [pid for pid, what in daemon.pids().items() if what == "worker"][-1:]
        began = time.perf_counter()
        os.kill(worker, signal.SIGKILL)
        wait_for(client, f"crash-{n}", "accepted")
        wait_for(client, f"crash-{n}", "running")
        again.append(time.perf_counter() - began)
        # A whole piece of work: the next death counts as the first again.
        request(client, f"proof-{n}", priority=8, params=window())
        wait_for(client, f"proof-{n}", "done")
        client.publish(f"denoised/bench/jobs/crash-{n}/cancel", b"")
        wait_for(client, f"crash-{n}", "cancelled")
    client.close()
    compare("worker killed -> its job runs again", again, load, "opening the networks", "<= limit + 50 ms", difference=True)


def burst(daemon: Daemon, folder: Path, jobs: int) -> None:
    """Requests as fast as they can be sent, until the last is accepted; against the spool alone with the same commits.

    The worker is stopped meanwhile: what it takes from the two cores of a small machine is not the question.
    """
    params = window()
    workers = [pid for pid, what in daemon.pids().items() if what == "worker"]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    rates, alone = [], []
    sender = daemon.client("sender", "nothing")
    events = daemon.client("events", "jobs/+/event")
    for n in range(3):
        alone.append(limits.spool_rate(folder / f"alone-{n}", params, _PER_COMMIT, jobs // 3))
        payloads = [json.dumps({"id": f"burst-{n}-{m}", "params": params}).encode() for m in range(jobs // 3)]
        began = time.perf_counter()
        for payload in payloads:
            sender.publish("denoised/bench/jobs/sensor-imputation/submit", payload)
        wait_for(events, f"burst-{n}-{jobs // 3 - 1}", "accepted")
        rates.append(jobs // 3 / (time.perf_counter() - began))
    row(
        f"durable accepts in a burst of {jobs // 3}, best of 3",
        f"{max(rates):.0f} /s",
        f"spool alone {max(alone):.0f} /s",
        f"{max(rates) / max(alone):.2f}",
        ">= 3000 /s",
    )
    # It would do all of them otherwise; who is stopped does not see that its supervisor is gone.
    daemon.process.kill()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


class Steps:
    """How long a step of a running job takes, from its progress events."""

    def __init__(self, client: RawClient, job_id: str):
        self._client, self._id = client, job_id
        self._took: list[float] = []

    @property
    def seconds(self) -> float:
        """The median over what was watched."""
        return statistics.median(self._took)

    def watch(self, seconds: float) -> None:
        """Reads the job's progress for so long."""
        first: tuple[float, int, int] | None = None
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            said = wait_for(self._client, self._id, "running")
            if "step" not in said or not said["step"]:
                continue
            at = (time.perf_counter(), said["item"], said["step"])
            if first is not None and at[1] == first[1] and at[2] > first[2]:
                self._took.append((at[0] - first[0]) / (at[2] - first[2]))
            first = at

    def restart(self) -> None:
        """The job was paused: the next event is a new beginning."""
        wait_for(self._client, self._id, "running")


def picture(count: int) -> dict[str, Any]:
    """The params of a defect job that takes long."""
    png = cv2.imencode(".png", surface.frame(1, 1))[1].tobytes()
    return {"image": {"data": base64.b64encode(png).decode()}, "count": count}


def points(values: list[float]) -> tuple[float, float, float]:
    """Minimum, 10th percentile and median."""
    q = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    return min(values), q[0], statistics.median(values)


def show(values: list[float]) -> str:
    """In milliseconds."""
    _, p10, p50 = points(values)
    return f"{p10 * 1000:.2f} ({p50 * 1000:.2f}) ms"


def compare(what: str, values: list[float], least: list[float], limit: str, wanted: str, difference: bool = False) -> None:
    """One line: a time, its limit and their ratio or difference."""
    ours, theirs = points(values)[1], points(least)[1]
    against = f"{(ours - theirs) * 1000:+.0f} ms" if difference else f"{ours / theirs:.2f}"
    row(what, show(values), show(least), against, f"{wanted} {limit}")


if __name__ == "__main__":
    main()
