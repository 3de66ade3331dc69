"""The calibration of a model on this board: `<state_dir>/calibration/<model>-<version>.json`, and whether it still holds.

Written by `denoised calibrate`, whole or not at all; read by whoever chooses an operating point. A file that is damaged, or
was measured on another board, another runtime or another model of that name, counts as absent, and why is said.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ..config import typed
from ..config.tree import Config
from ..engines.bundle import Bundle, Manifest
from .board.clocks import cpu_clocks
from .core.frontier import Point, Quality, Speed
from .durable import write_json

_RUNTIMES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
"""Backend -> the distributions that bring it, where their names differ."""
_MEMORY_STEP_MB = 256
"""Kernels differ in how much memory they keep for themselves."""


@dataclass(frozen=True)
class Fingerprint:
    """What a calibration holds for."""

    board: str
    arch: str
    cores: int
    memory_mb: int
    backend: str
    runtime: str
    model_sha256: str
    clock_mhz: int
    """The top clock of the processor, as it is built; 0 where it does not say."""
    mode: str | None
    """The board's power mode, which caps clocks and cores; None where it has none."""

    def differences(self, here: Fingerprint) -> str:
        """In words what is another here; empty where all is the same."""
        changed = [f.name for f in fields(self) if getattr(self, f.name) != getattr(here, f.name)]
        return ", ".join(f"{n} was {getattr(self, n)!r}, is {getattr(here, n)!r}" for n in changed)


@dataclass(frozen=True)
class Method:
    """How the figures were come by, in words."""

    time: str
    energy: str
    quality: str


@dataclass(frozen=True)
class Calibration:
    """What was measured so far, and the frontier of it. complete: nothing is left to measure."""

    format: Literal[2]
    model: str
    version: str
    fingerprint: Fingerprint
    method: Method
    idle_w: float
    """What the board draws at rest, by the same meter."""
    complete: bool
    qualities: tuple[Quality, ...]
    speeds: tuple[Speed, ...]
    frontier: tuple[Point, ...]

    @classmethod
    def empty(cls, manifest: Manifest, here: Fingerprint, method: Method, idle_w: float) -> Calibration:
        """Nothing measured yet."""
        return cls(2, manifest.name, manifest.version, here, method, idle_w, False, (), (), ())

    def plus(self, measured: Quality | Speed) -> Calibration:
        """With one more figure; the frontier is not made anew."""
        if isinstance(measured, Quality):
            return replace(self, qualities=(*self.qualities, measured))
        return replace(self, speeds=(*self.speeds, measured))


def path_of(config: Config, bundle: Bundle) -> Path:
    """Where the calibration of this bundle lies."""
    return Path(config.state_dir) / "calibration" / f"{bundle.manifest.name}-{bundle.manifest.version}.json"


def fingerprint(config: Config, bundle: Bundle, board: str, mode: str | None) -> Fingerprint:
    """Of this machine as it is now. board: its name; mode: the power mode that it is in."""
    backend = config.engine.backend
    return Fingerprint(
        board=board,
        arch=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_mb=_memory_mb(),
        backend=f"{backend} on {config.engine.provider}",
        runtime=runtime(backend),
        model_sha256=bundle.sha256,
        clock_mhz=_clock_mhz(Path(config.board.sysfs_root)),
        mode=mode,
    )


def load(path: Path, here: Fingerprint) -> tuple[Calibration | None, str | None]:
    """The calibration at `path` if it holds `here`, else why not; both None where there is none."""
    again = "run 'denoised calibrate' again"
    try:
        found = typed.read(json.loads(path.read_bytes()), Calibration)
    except FileNotFoundError:
        return None, None
    except OSError as e:
        return None, f"{path}: cannot be read: {e.strerror}"
    except (ValueError, RecursionError) as e:  # not JSON, not text, cut short, or of another form
        return None, f"{path}: damaged ({e}); {again}"
    stale = found.fingerprint.differences(here)
    return (None, f"{path}: measured elsewhere ({stale}); {again}") if stale else (found, None)


def store(path: Path, calibration: Calibration) -> None:
    """Durable and whole, or what was there before."""
    write_json(path, asdict(calibration))


def _clock_mhz(sysfs: Path) -> int:
    """The processor's own limit: what somebody has capped it to may be another tomorrow."""
    return max((round(clock.top / 1000) for clock in cpu_clocks(sysfs)), default=0)


def _memory_mb() -> int:
    lines = _lines(Path("/proc/meminfo"))
    kb = next((int(line.split()[1]) for line in lines if line.startswith("MemTotal:")), 0)
    return round(kb / 1024 / _MEMORY_STEP_MB) * _MEMORY_STEP_MB


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


@functools.cache
def runtime(backend: str) -> str:
    """The installed library and its version; it is not imported."""
    for name in _RUNTIMES.get(backend, (backend,)):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return backend
