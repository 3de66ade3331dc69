"""What nobody can beat, measured beside the daemon: a raw round trip, one fdatasync, the network alone, the spool alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from denoised.config.tree import Config
from denoised.daemon.core.job import Job
from denoised.daemon.models import find_models, job_threads, site_of
from denoised.daemon.spool import Spool
from denoised.engines.engine import open_engine
from denoised.engines.host import over_run
from denoised.plugins.kind import Task, load_kinds
from denoised.plugins.play import play
from raw_mqtt import RawClient


class RoundTrip:
    """A message through the broker to somebody who sends it back, on bare sockets at both ends."""

    def __init__(self, port: int):
        echo = RawClient(port, "echo", "raw/there")
        self._asker = RawClient(port, "asker", "raw/back")
        threading.Thread(target=self._echo, args=(echo,), daemon=True).start()

    @staticmethod
    def _echo(client: RawClient) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                client.publish("raw/back", client.receive()[1])

    def seconds(self, payload: bytes) -> float:
        """There and back."""
        began = time.perf_counter()
        self._asker.publish("raw/there", payload)
        self._asker.receive()
        return time.perf_counter() - began


class Sync:
    """One write into a file that has its size already, and one fdatasync."""

    def __init__(self, folder: Path):
        self._fd = os.open(folder / "fsync", os.O_CREAT | os.O_WRONLY)
        self._n = 0
        os.pwrite(self._fd, bytes(1 << 20), 0)
        os.fsync(self._fd)

    def seconds(self, data: bytes) -> float:
        """One of it."""
        self._n = (self._n + 1) % 200
        began = time.perf_counter()
        os.pwrite(self._fd, data, 4096 * self._n)
        os.fdatasync(self._fd)
        return time.perf_counter() - began


class Network:
    """The sensor job in this process, of which only the time inside the engine's calls is counted."""

    def __init__(self, params: dict[str, Any]):
        config = Config()
        models, _ = find_models(config)
        self._site = site_of(config, models)
        self._kind, self._params = load_kinds()["sensor-imputation"], params
        bundle = models["sensor-imputation"][0]
        point = bundle.manifest.operating_points[0]
        files = bundle.manifest.variants[point.variant]
        self._engines = {name: open_engine(bundle.file(file), threads=job_threads(config)) for name, file in files.items()}
        self._inside = 0.0
        for engine in self._engines.values():
            self._wrap(engine)
        self._task = Task("bench", 1, Path("/nonexistent"), bundle, point, self._engines.__getitem__, self._site)

    def _wrap(self, engine: Any) -> None:
        run = engine.run

        def timed(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            began = time.perf_counter()
            out: dict[str, np.ndarray] = run(feeds)
            self._inside += time.perf_counter() - began
            return out

        engine.run = timed
        engine.bind = partial(over_run, engine)  # the loop goes through `run` then

    def seconds(self) -> float:
        """Inside the networks, for one job."""
        self._inside = 0.0
        play(self._kind, self._params, self._task)
        return self._inside


def session_load_s() -> float:
    """Opening the networks that a new worker opens before it is ready: the default variant of each default model."""
    config = Config()
    bundles = [models[0] for models in find_models(config)[0].values()]
    began = time.perf_counter()
    for bundle in bundles:
        for file in bundle.manifest.variants[bundle.manifest.operating_points[0].variant].values():
            open_engine(bundle.file(file), threads=job_threads(config))
    return time.perf_counter() - began


def spool_rate(folder: Path, params: dict[str, Any], per_commit: int, jobs: int) -> float:
    """Jobs a second that the spool takes by itself, so many in each commit."""
    spool = Spool(folder / f"spool-{per_commit}" / "spool.db")
    made = [Job(f"j-{n}", "sensor-imputation", params, 1, 0, 0.0, digest="0" * 64) for n in range(jobs)]
    began = time.perf_counter()
    for n in range(0, jobs, per_commit):
        spool.accept(made[n : n + per_commit], 0.0)
    took = time.perf_counter() - began
    spool.close()
    return jobs / took


def imports_s() -> float:
    """An interpreter that imports what the supervisor imports, finds the kinds, and ends."""
    program = (
        "import denoised.daemon.supervisor, denoised.config.load\nfrom denoised.plugins.kind import load_kinds\nload_kinds()"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.monotonic() - began
