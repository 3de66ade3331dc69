"""The daemon beside its limits, in one run: `python bench/daemon.py [--rounds N]`.

READY and memory of its processes; request -> accepted against a raw MQTT round trip plus one fdatasync; request -> result
against that plus the time inside the network. A real mosquitto on loopback, the shipped sensor model, interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import yaml
from denoised.config.tree import Config
from denoised.daemon.models import find_models, site_of
from denoised.demo.broker import Broker
from denoised.demo.plant import Plant
from denoised.engines.engine import open_engine
from denoised.plugins.kind import Task, load_kinds
from denoised.plugins.play import play
from raw_mqtt import RawClient


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name, Broker("mosquitto", Path(name)) as broker:
        folder = Path(name)
        config = {"gateway": {"id": "bench"}, "mqtt": {"port": broker.port}, "state_dir": str(folder / "state")}
        (folder / "denoised.yaml").write_text(yaml.safe_dump(config))
        daemon, ready_s = start(folder)
        try:
            measure(daemon, ready_s, broker.port, folder, rounds)
        finally:
            daemon.terminate()
            daemon.wait()


def start(folder: Path) -> tuple[subprocess.Popen[bytes], float]:
    """The daemon as systemd starts it, and seconds until READY=1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        command = [sys.executable, "-m", "denoised", "run", "--config", str(folder / "denoised.yaml")]
        began = time.monotonic()
        log = (folder / "daemon.log").open("wb")
        daemon = subprocess.Popen(command, env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}, stderr=log)
        while b"READY=1" not in notify.recv(4096):
            pass
        return daemon, time.monotonic() - began


def measure(daemon: subprocess.Popen[bytes], ready_s: float, port: int, folder: Path, rounds: int) -> None:
    """Interleaved rounds of everything, so that the machine's other load falls on all alike."""
    echo, asker = RawClient(port, "echo", "raw/there"), RawClient(port, "asker", "raw/back")
    threading.Thread(target=_echo, args=(echo,), daemon=True).start()
    status = RawClient(port, "status", "denoised/bench/status")
    while b"online" not in status.receive()[1]:
        pass
    client = RawClient(port, "client", "denoised/bench/jobs/+/+")
    fd = os.open(folder / "fsync", os.O_CREAT | os.O_WRONLY)
    os.pwrite(fd, bytes(1 << 20), 0)
    os.fsync(fd)
    params = _params()
    network = _Network(params)
    times: dict[str, list[float]] = {k: [] for k in ("trip", "fsync", "accepted", "result", "network")}
    for n in range(rounds + 5):
        payload = json.dumps({"id": f"b-{n}", "params": params}).encode()
        taken = {
            "trip": _trip(asker, payload[:200]),
            "fsync": _fsync(fd, payload[:2048], 4096 * (n % 200)),
            "network": network.seconds(),
        }
        began = time.perf_counter()
        client.publish("denoised/bench/jobs/sensor-imputation/submit", payload)
        while True:
            topic, body = client.receive()
            if topic.endswith("/event") and json.loads(body)["state"] == "accepted":
                taken["accepted"] = time.perf_counter() - began
            if topic.endswith("/result"):
                result = json.loads(body)
                assert result["state"] == "done", result
                taken["result"] = time.perf_counter() - began
                break
        if n >= 5:
            for key, value in taken.items():
                times[key].append(value * 1000)
    print(f"READY after {ready_s * 1000:.0f} ms; bare imports of the supervisor {_imports_ms():.0f} ms")
    for pid, what in ((daemon.pid, "supervisor"), *((p, "worker") for p in _children(daemon.pid))):
        print(f"{what:10s} {_memory(pid)}")
    print(f"\n{rounds} rounds, ms        min     p10     p50     p99")
    limits = {"accepted": ("trip", "fsync"), "result": ("trip", "fsync", "network")}
    words = {
        "trip": "raw MQTT round trip",
        "fsync": "one fdatasync",
        "network": "inside the network",
        "accepted": "request -> accepted",
        "result": "request -> result",
    }
    for key, values in times.items():
        print(f"{words[key]:22s}" + "".join(f"{v:8.2f}" for v in _points(values)))
    for key, parts in limits.items():
        ratios = [a / sum(_points(times[p])[i] for p in parts) for i, a in enumerate(_points(times[key]))]
        print(f"{key + ' / limit':22s}" + "".join(f"{r:8.2f}" for r in ratios))


class _Network:
    """The same job in this process, of which only the time inside the engine's calls is counted."""

    def __init__(self, params: dict[str, object]):
        config = Config()
        models, _ = find_models(config)
        self._site = site_of(config, models)
        self._kind, self._params = load_kinds()["sensor-imputation"], params
        bundle = models["sensor-imputation"][0]
        point = bundle.manifest.operating_points[0]
        files = bundle.manifest.variants[point.variant]
        threads = max(1, len(os.sched_getaffinity(0)) - 1)
        self._engines = {name: open_engine(bundle.file(file), threads=threads) for name, file in files.items()}
        self._inside = 0.0
        for engine in self._engines.values():
            self._wrap(engine)
        self._task = Task("bench", 1, Path("/nonexistent"), bundle, point, self._engines.__getitem__, self._site)

    def _wrap(self, engine: object) -> None:
        run = engine.run  # type: ignore[attr-defined]

        def timed(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            began = time.perf_counter()
            out: dict[str, np.ndarray] = run(feeds)
            self._inside += time.perf_counter() - began
            return out

        engine.run = timed  # type: ignore[attr-defined]

    def seconds(self) -> float:
        self._inside = 0.0
        play(self._kind, self._params, self._task)
        return self._inside


def _params() -> dict[str, object]:
    plant = Plant(3, 0.25)
    return {"tags": list(plant.tags), "values": [list(row.delivered) for row in plant.rows(48)]}


def _echo(client: RawClient) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            client.publish("raw/back", client.receive()[1])


def _trip(client: RawClient, payload: bytes) -> float:
    began = time.perf_counter()
    client.publish("raw/there", payload)
    client.receive()
    return time.perf_counter() - began


def _fsync(fd: int, data: bytes, at: int) -> float:
    began = time.perf_counter()
    os.pwrite(fd, data, at)
    os.fdatasync(fd)
    return time.perf_counter() - began


def _points(values: list[float]) -> list[float]:
    q = statistics.quantiles(values, n=100, method="inclusive")
    return [min(values), q[9], q[49], q[98]]


def _imports_ms() -> float:
    """The same interpreter importing what the supervisor imports, and nothing else done."""
    program = (
        "import denoised.daemon.supervisor, denoised.config.load\nfrom denoised.plugins.kind import load_kinds\nload_kinds()"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.monotonic() - began) * 1000


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _memory(pid: int) -> str:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    private = found["Private_Dirty:"] + found["Private_Clean:"]
    return f"RSS {found['Rss:']:.1f} MiB, PSS {found['Pss:']:.1f}, private {private:.1f}"


if __name__ == "__main__":
    main()
