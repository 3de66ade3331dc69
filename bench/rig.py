"""What the daemon's benchmarks share: a broker and the daemon beside it as systemd starts it, and the kernel's view of both."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from denoised.demo.broker import Broker
from denoised.demo.plant import Plant
from raw_mqtt import RawClient

BASE = "denoised/bench"


@dataclass
class Daemon:
    """A running daemon, its broker's port and how long it took until READY=1."""

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float

    def client(self, name: str, topics: str) -> RawClient:
        """A plant client on `topics` below the daemon's base."""
        return RawClient(self.port, name, f"{BASE}/{topics}")

    def pids(self) -> dict[int, str]:
        """Its processes: the supervisor, and by depth what runs below it."""
        below = _below(self.process.pid)
        parents = {parent for pid in below for parent in below if pid in _below(parent)}
        return {self.process.pid: "supervisor", **{pid: "zygote" if pid in parents else "worker" for pid in below}}


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Daemon]:
    """A broker and a daemon that is on the bus; both end with the block."""
    with Broker("mosquitto", folder, settings="max_queued_messages 0") as broker:
        process, ready_s = start(folder, broker.port, **settings)
        try:
            status = RawClient(broker.port, "status", f"{BASE}/status")
            while b"online" not in status.receive()[1]:
                pass
            status.close()
            yield Daemon(process, broker.port, ready_s)
        finally:
            process.terminate()
            process.wait()


def start(folder: Path, port: int, **settings: Any) -> tuple[subprocess.Popen[bytes], float]:
    """The daemon, and seconds until READY=1."""
    config = {"gateway": {"id": "bench"}, "mqtt": {"port": port}, "state_dir": str(folder / "state"), **settings}
    (folder / "denoised.yaml").write_text(yaml.safe_dump(config))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (folder / "daemon.log").open("ab") as log:
        address = folder / "notify"
        address.unlink(missing_ok=True)
        notify.bind(str(address))
        notify.settimeout(60)
        command = [sys.executable, "-m", "denoised", "run", "--config", str(folder / "denoised.yaml")]
        began = time.monotonic()
        process = subprocess.Popen(command, env={**os.environ, "NOTIFY_SOCKET": str(address)}, stderr=log)
        while b"READY=1" not in notify.recv(4096):
            pass
        return process, time.monotonic() - began


def window(rows: int = 48) -> dict[str, Any]:
    """The params of a sensor job: so many rows of three tags with gaps."""
    plant = Plant(3, 0.25)
    return {"tags": list(plant.tags), "values": [list(row.delivered) for row in plant.rows(rows)]}


def request(client: RawClient, job_id: str, kind: str = "sensor-imputation", **fields: Any) -> None:
    """Sends a job."""
    client.publish(f"{BASE}/jobs/{kind}/submit", json.dumps({"id": job_id, **fields}).encode())


def wait_for(client: RawClient, job_id: str, state: str) -> dict[str, Any]:
    """Reads until the job says that it is in this state; a job that ends otherwise is an error."""
    while True:
        topic, payload = client.receive()
        if topic.split("/")[-2] == job_id and topic.endswith(("/event", "/result")):
            said: dict[str, Any] = json.loads(payload)
            # A final state is said as an event too by some versions; the result alone holds the artifacts.
            if said["state"] == state and (state in ("accepted", "running", "paused") or topic.endswith("/result")):
                return said
            if topic.endswith("/result"):
                raise RuntimeError(f"{job_id} ended before it was {state}: {said}")


def pss_mb(pid: int) -> tuple[float, float]:
    """PSS and private memory of a process in MB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kb, *_ = line.split()
        found[name] = int(kb) * 1024 / 1e6
    return found["Pss:"], found["Private_Dirty:"] + found["Private_Clean:"]


def cpu_s(pid: int) -> float:
    """Seconds that the process's threads have been on a CPU, to the nanosecond: the ticks of `stat` are coarse for idling."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def written_bytes(pid: int) -> int:
    """Bytes that the process has caused to be sent to a disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


@dataclass(frozen=True)
class Idle:
    """What a daemon takes that has nothing to do."""

    cpu_percent: float
    written_bytes_per_min: float
    pss_mb: float


def idle(daemon: Daemon, seconds: float) -> Idle:
    """Watches it for so long."""
    pids = list(daemon.pids())
    before = {pid: (cpu_s(pid), written_bytes(pid)) for pid in pids}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    cpu = sum(cpu_s(pid) - before[pid][0] for pid in pids)
    written = sum(written_bytes(pid) - before[pid][1] for pid in pids)
    return Idle(100 * cpu / took, written * 60 / took, sum(pss_mb(pid)[0] for pid in pids))


def row(what: str, measured: str, limit: str, ratio: str, wanted: str) -> None:
    """A line of the table that all benchmarks of the daemon print."""
    print(f"{what:44s} {measured:>22s} {limit:>26s} {ratio:>8s}  {wanted}", flush=True)


def _below(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found
