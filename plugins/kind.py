"""What a job kind is: a request in, denoising problems through the engine, artifacts out. Knows no MQTT, spool or governor.

A kind is one object behind an entry point of the group `denoised.kinds`; ours are listed in setup.py beside anyone's.
Its module is imported by the supervisor too, so it must import neither numpy nor cv2 at the top: `check` runs in the
supervisor, `work` in the worker, and `work` imports what it needs.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config.refusal import Refusal
from ..config.typed import did_you_mean
from ..engines.bundle import Bundle, OperatingPoint

if TYPE_CHECKING:
    import numpy as np

    from ..engines.denoise import Known
    from ..engines.engine import Engine


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One run of the denoising loop.

    x: unit noise (B, ...), float32, the start of the trajectory (coloured by the kind if it likes); at an operating point
    of 0 steps it comes back as it is, and may be empty: a place to stop. cond: the denoiser
    network's inputs beside `x` and `t`, constant over the steps. items: which of the job's items the B rows belong to.
    without: `cond` without what guides, for operating points with guidance. known: a region whose values are given.
    """

    x: np.ndarray
    cond: Mapping[str, np.ndarray]
    items: tuple[int, ...]
    without: Mapping[str, np.ndarray] | None = None
    known: Known | None = None


@dataclass(frozen=True)
class Artifact:
    """A file that `work` left in the job's folder."""

    name: str
    media_type: str
    role: str


@dataclass(frozen=True)
class Outcome:
    """What a job ends in: files in its folder, and the `output` object of the result."""

    artifacts: tuple[Artifact, ...]
    output: dict[str, Any]


@dataclass(frozen=True)
class Site:
    """What this gateway offers, for `check`: input folders, cameras by name, models by kind (the default first).

    calibrations: folder of what is stored of groups of sensors.
    """

    folders: tuple[Path, ...] = ()
    cameras: frozenset[str] = frozenset()
    models: Mapping[str, tuple[Bundle, ...]] = field(default_factory=dict)
    max_pixels: int = 64_000_000
    calibrations: Path | None = None

    def stamp(self) -> list[str]:
        """What is stored of sensors now, each file's name and time: a job begun with other ones is not gone on with."""
        return (
            sorted(f"{path.name} {path.stat().st_mtime_ns}" for path in self.calibrations.glob("*.npz"))
            if self.calibrations
            else []
        )

    def model(self, kind: str, wanted: str | None) -> Bundle:
        """The named model of this kind, or the default one; refused as `unknown-model`."""
        models = self.models.get(kind, ())
        if not models:
            raise Refusal("unknown-model", f"no model for {kind} is installed here; see 'denoised models list'")
        for bundle in models:
            if wanted in (None, bundle.manifest.name):
                return bundle
        names = [b.manifest.name for b in models]
        raise Refusal("unknown-model", f"no model '{wanted}' for {kind}{did_you_mean(str(wanted), names)}", "params.model")

    def camera(self, name: str, field: str) -> None:
        """Refused as `unknown-input` where the config has no such camera."""
        if name not in self.cameras:
            raise Refusal("unknown-input", f"no camera '{name}' in the config{did_you_mean(name, self.cameras)}", field)

    def input_path(self, path: str, field: str) -> Path:
        """An existing file inside the input folders, links resolved; anything else is refused as `unknown-input`."""
        allowed = ", ".join(map(str, self.folders)) or "none configured"
        if "\0" in path:
            raise Refusal("unknown-input", "a path cannot hold a NUL character", field)
        for folder in self.folders:
            real = os.path.realpath(folder / path)
            if Path(real).is_relative_to(os.path.realpath(folder)) and os.path.isfile(real):
                return Path(real)
        raise Refusal("unknown-input", f"no file '{path[:200]}' inside the input folders ({allowed})", field)


@dataclass(frozen=True)
class Task:
    """What `work` is given in the worker, beside the params.

    folder: where artifacts go, empty at the start. inputs: the site again, for paths. frame: the picture that the camera
    took for this job, where the params name one. network(name) opens a network of the bundle's variant.
    origin: the provenance facts that hold for the whole job (gateway, job, model, version, sha256, operating point).
    """

    id: str
    seed: int
    folder: Path
    bundle: Bundle
    point: OperatingPoint
    network: Callable[[str], Engine]
    site: Site
    frame: Path | None = None
    origin: Mapping[str, str] = field(default_factory=dict)


class JobKind(Protocol):
    """A type of job. Stateless: everything about one job comes in as arguments."""

    name: str
    params: type
    """A frozen dataclass; unknown fields are refused before `check` is called."""

    def check(self, params: Any, site: Site) -> int:
        """Refuses what can be refused without opening pictures or networks (`Refusal`); returns the number of items."""

    def camera(self, params: Any) -> str | None:
        """The camera whose frame this job wants, or None."""

    def self_test(self, bundle: Bundle) -> dict[str, Any]:
        """The params of a small job that needs nothing of the plant: what a calibration and the trial of a new model run.

        Enough items to fill the largest batch that is worth trying. Never called in the supervisor.
        """

    def work(self, params: Any, task: Task) -> Generator[Problem, np.ndarray, Outcome]:
        """Yields denoising problems, is sent each one's result (same shape as x, float32), returns the outcome.

        Must be a function of params and task alone: a resumed job is played again with the results it already has.
        Bad input found here is raised as `Refusal` with code `input`, `too-large` or `unknown-input`.
        """


@functools.cache
def load_kinds() -> dict[str, JobKind]:
    """Every installed kind by name, ours and anyone's; one that does not import is left out and said so.

    Looked for once in a process and what is forked from it. The mapping is shared: not to be changed.
    """
    kinds: dict[str, JobKind] = {}
    for point in sorted(entry_points(group="denoised.kinds"), key=lambda p: p.name):
        try:
            kinds[point.name] = point.load()
        except Exception as e:  # a plugin of somebody else's must not take the daemon down
            log.error("job kind '%s' left out: %s does not import: %s", point.name, point.value, e)
    return kinds
