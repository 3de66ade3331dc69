"""Times, watts and distances of a model on this machine, through the job kind's real path: for `calibrate` and `models bench`.

The problems are those of the kind's own self-test, the reference is float32 with many steps at the same seeds. Runs
networks, so it belongs to commands and never to the supervisor.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import typed
from ..config.tree import Config
from ..engines.bundle import Bundle, BundleError, OperatingPoint
from ..engines.denoise import Checkpoint
from ..engines.engine import Engine, EngineRunError, open_engine
from ..engines.samplers import sampler
from ..engines.schedules import schedule
from ..plugins.kind import JobKind, Problem, Site, Task
from ..plugins.play import drive, solve, trajectory, walk
from .board.energy import Meter
from .calibration import Method
from .core.frontier import Quality, Speed
from .models import job_threads

REFERENCE_STEPS = 50
_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_STEPS, _SECONDS = 8, 0.5
"""A speed is measured over at least so many steps and seconds ..."""
_SENSED_SECONDS = 1.5
"""... and over so many seconds where a power sensor has to answer meanwhile."""
_SEED = 1


@dataclass(frozen=True)
class Played:
    """One self-test job: every problem's result in turn, rows of the network's batch in all, and times in seconds."""

    results: tuple[np.ndarray, ...]
    rows: int
    total_s: float
    loop_s: float


class Measurer:
    """One model on this machine. Networks stay open from one measurement to the next while the threads are the same."""

    def __init__(self, config: Config, kind: JobKind, bundle: Bundle, meter: Meter):
        self._config, self._kind, self._bundle, self._meter = config, kind, bundle, meter
        self._engines: dict[tuple[str, str], Engine] = {}
        self._threads = 0
        self._problem: Problem | None = None
        bundle.verify()
        self.shipped = bundle.manifest.operating_points
        self.points = tuple(p for p in self.shipped if p.steps)
        if not self.points:
            raise BundleError(f"{bundle.folder}: no operating point denoises, so there is nothing to measure")
        self.steps, self.batches = steps_to_try(self.points), batches_to_try(self.points)
        self.threads = threads_to_try(config)
        fp32 = next((p for p in self.points if p.variant == "fp32"), self.points[0])
        self.ways = sorted({self.way_of(p) for p in self.points})
        """The place of the first shipped operating point of each way: see `core/frontier.py`."""
        self._fine = replace(fp32, steps=REFERENCE_STEPS, batch=self.batches[-1])
        self._reference: Played | None = None
        self.method = Method(
            time="wall time of a step, the lowest tenth of several; a sample is one row of the network's batch",
            energy=meter.method,
            quality=f"RMS distance to {REFERENCE_STEPS} steps of {fp32.sampler} in {fp32.variant} at equal seeds, over the RMS "
            "of those, on the kind's self-test",
        )

    def close(self) -> None:
        """Gives the networks back."""
        while self._engines:
            self._engines.popitem()[1].close()

    def way_of(self, point: OperatingPoint) -> int:
        """The place of the first shipped point that is run the same way; -1 where none is."""
        way = replace(point, steps=1, batch=1, quality={})
        ways = ((i, replace(p, steps=1, batch=1, quality={})) for i, p in enumerate(self.shipped) if p.steps)
        return next((i for i, found in ways if found == way), -1)

    def play(self, point: OperatingPoint) -> Played:
        """The kind's self-test at this operating point, on as many threads as jobs here have."""
        folder = tempfile.TemporaryDirectory(prefix="denoised-measure-")
        results: list[np.ndarray] = []
        loop_s = 0.0

        def network(name: str) -> Engine:
            return self._network(point.variant, name, job_threads(self._config))

        def watched(problem: Problem) -> np.ndarray:
            nonlocal loop_s
            self._problem = self._problem or problem
            began = time.perf_counter()
            result = solve(trajectory(problem, task))
            loop_s += time.perf_counter() - began
            results.append(result.copy())
            return result

        with folder as path:
            task = Task("self-test", _SEED, Path(path), self._bundle, point, network, site_of_one(self._kind, self._bundle))
            request: Any = typed.read(self._kind.self_test(self._bundle), self._kind.params)
            for name in self._bundle.manifest.variants[point.variant]:
                network(name)  # opened before the clock starts
            began = time.perf_counter()
            drive(self._kind.work(request, task), watched)
            total_s = time.perf_counter() - began
        return Played(tuple(results), sum(map(len, results)), total_s, loop_s)

    def idle_w(self) -> float:
        """What the board draws while nothing is done here."""
        self._meter.start()
        time.sleep(_SENSED_SECONDS if self._meter.measured else 0.01)
        return round(self._meter.stop(), 3)

    def quality(self, shipped: int, steps: int) -> Quality:
        """How far from the reference so many steps end, at the largest batch."""
        if self._reference is None:
            self._reference = self.play(self._fine)
        way = self.shipped[shipped]
        played = self.play(replace(way, steps=steps, batch=self._fine.batch))
        far = distance(played, self._reference)
        if not np.isfinite(far):
            raise EngineRunError(f"{way.variant} with {way.sampler}, {steps} steps, gives numbers that are not finite here")
        rest_ms = max(played.total_s - played.loop_s, 0.0) / played.rows * 1e3
        return Quality(way.variant, way.sampler, steps, round(far, 6), round(rest_ms, 4), shipped)

    def speed(self, shipped: int, batch: int, threads: int) -> Speed:
        """Steps of the first problem of the self-test, cut or repeated to the batch."""
        if self._problem is None:
            self.play(self._fine)
        assert self._problem is not None
        way = self.shipped[shipped]
        engine = self._network(way.variant, "denoiser", threads)
        problem, manifest = _with_rows(self._problem, batch), self._bundle.manifest
        sigmas = schedule(manifest.schedule, _STEPS, **manifest.schedule_args)
        method = sampler(way.sampler, **way.sampler_args)

        def checkpoints(sigmas: Sequence[float]) -> Iterator[Checkpoint]:
            return walk(problem, engine, sigmas, method, manifest.prediction, _SEED, guidance=way.guidance)

        solve(checkpoints(sigmas[-3:]))  # the first calls allocate
        took: list[float] = []
        self._meter.start()
        until = time.perf_counter() + (_SENSED_SECONDS if self._meter.measured else _SECONDS)
        while len(took) < _STEPS or time.perf_counter() < until:
            walking = checkpoints(sigmas)
            next(walking)
            began = time.perf_counter()
            for _ in walking:
                now = time.perf_counter()
                took.append(now - began)
                began = now
        power_w = self._meter.stop()
        step_ms = float(np.quantile(took, 0.1)) * 1e3
        return Speed(way.variant, way.sampler, batch, threads, round(step_ms, 4), round(power_w, 3), shipped)

    def _network(self, variant: str, name: str, threads: int) -> Engine:
        if threads != self._threads:
            self.close()
            self._threads = threads
        if (variant, name) not in self._engines:
            path = self._bundle.file(self._bundle.manifest.variants[variant][name])
            engine = self._config.engine
            ranges = self._bundle.manifest.ranges
            self._engines[variant, name] = open_engine(
                path, engine.backend, threads, engine.provider, self._config.plans_dir, ranges
            )
        return self._engines[variant, name]


def site_of_one(kind: JobKind, bundle: Bundle) -> Site:
    """A gateway that has nothing but this model."""
    return Site(models={kind.name: (bundle,)})


def disturbance() -> str | None:
    """In words, where something else computes on this machine and the figures will come out too slow."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"denoised.daemon.worker" in cmdline.read_bytes():
                return "a daemon is running on this machine: its jobs and this measurement disturb each other"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        return f"this machine is busy (load {load:.1f} on {cores} cores): the figures will come out too slow"
    return None


def distance(played: Played, reference: Played) -> float:
    """RMS difference over the RMS of the reference, over all problems."""
    off = sum(float(((a - b).astype(np.float64) ** 2).sum()) for a, b in zip(played.results, reference.results))
    size = sum(float((b.astype(np.float64) ** 2).sum()) for b in reference.results)
    return float(np.sqrt(off / max(size, 1e-300)))


def steps_to_try(points: Sequence[OperatingPoint]) -> list[int]:
    """Between the fewest and the most steps that the bundle was validated with."""
    shipped = {p.steps for p in points}
    return sorted(shipped | {n for n in _LADDER if min(shipped) <= n <= max(shipped)})


def batches_to_try(points: Sequence[OperatingPoint]) -> list[int]:
    """Powers of two up to the largest batch that the bundle was validated with, and that one."""
    most = max(p.batch for p in points)
    return sorted({2**n for n in range(most.bit_length()) if 2**n <= most} | {most})


def threads_to_try(config: Config) -> list[int]:
    """What jobs get first; beside it, unless the config fixes it, powers of two up to all cores."""
    first, cores = job_threads(config), len(os.sched_getaffinity(0))
    if isinstance(config.engine.threads, int):
        return [first]
    return [first, *sorted(({2**n for n in range(cores.bit_length()) if 2**n <= cores} | {cores}) - {first})]


def _with_rows(problem: Problem, rows: int) -> Problem:
    take = np.arange(rows) % len(problem.x)
    items = tuple(problem.items[i] for i in take)
    without = None if problem.without is None else {name: values[take] for name, values in problem.without.items()}
    return Problem(problem.x[take], {name: values[take] for name, values in problem.cond.items()}, items, without)
