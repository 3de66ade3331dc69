"""The operating points that a job here can be run at: those of the stored calibration, else the model's first one.

A job that has written a checkpoint stays at its point, also over a restart: `pin` keeps it beside the checkpoint. Imports
no array library: supervisor and worker both use it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config import typed
from ..config.tree import Config
from ..engines.bundle import Bundle, OperatingPoint
from .calibration import Calibration, fingerprint, load, path_of
from .core.frontier import NOISE
from .durable import read_json, write_json
from .models import job_threads

log = logging.getLogger(__name__)

_PINNED = "point.json"


@dataclass(frozen=True)
class BoardPoint:
    """An operating point and what it costs on this board; what was not measured is None.

    shipped: the place in the manifest of the point that has its way (variant, sampler, its choices, guidance). sample_s:
    seconds of one row of the network's batch. busy_w: watts above rest; metered: read at a sensor, no estimate. quality: 1
    less the distance to many float32 steps.
    """

    model_sha256: str
    shipped: int
    steps: int
    batch: int
    threads: int
    sample_s: float | None = None
    busy_w: float | None = None
    quality: float | None = None
    metered: bool = False

    def point(self, bundle: Bundle) -> OperatingPoint:
        """As a job kind is given it."""
        return replace(bundle.manifest.operating_points[self.shipped], steps=self.steps, batch=self.batch)

    def told(self, bundle: Bundle) -> dict[str, Any]:
        """As results and promises name it."""
        way = bundle.manifest.operating_points[self.shipped]
        told = {"variant": way.variant, "sampler": way.sampler, "steps": self.steps, "batch": self.batch}
        return {**told, "threads": self.threads}


@dataclass(frozen=True)
class Offer:
    """What a model can be run at here. floor: the quality of its first point, less what cannot be told apart from it."""

    points: tuple[BoardPoint, ...]
    floor: float
    calibrated: bool

    def acceptable(self, quality: float | None) -> tuple[BoardPoint, ...]:
        """Those of at least this quality, by default that of the model's first point; the best one where none reaches it."""
        floor = self.floor if quality is None else quality
        good = tuple(c for c in self.points if c.quality is None or c.quality >= floor)
        return good or (max(self.points, key=lambda c: c.quality or 0.0),)


class Offers:
    """The offers of all models on this board. `mode`: its power mode; what was measured in another one does not hold."""

    def __init__(self, config: Config, board: str, mode: str | None):
        self._config, self._board, self.mode = config, board, mode
        self._offers: dict[str, Offer] = {}

    def of(self, bundle: Bundle) -> Offer:
        """Read once for each model, as a calibration is a file."""
        if bundle.sha256 not in self._offers:
            found, why = load(path_of(self._config, bundle), fingerprint(self._config, bundle, self._board, self.mode))
            if why:
                log.warning("%s; until then %s runs as it ships", why, bundle.manifest.name)
            self._offers[bundle.sha256] = _offer(self._config, bundle, found)
        return self._offers[bundle.sha256]


def _offer(config: Config, bundle: Bundle, found: Calibration | None) -> Offer:
    first, most = bundle.manifest.operating_points[0], job_threads(config)
    if config.policy.governor == "off":
        return Offer((unmeasured(bundle, most),), 0.0, calibrated=False)
    threads = [most] if isinstance(config.engine.threads, int) else range(1, most + 1)
    shipped = unmeasured(bundle, most)
    usual = [q.distance for q in found.qualities if (q.shipped, q.steps) == (0, first.steps)] if found else []
    points = [p for p in found.frontier if p.threads in threads] if found and usual else []
    if found is None or not points:
        return Offer((shipped,), 0.0, calibrated=False)
    offered = [
        BoardPoint(
            bundle.sha256,
            p.shipped,
            p.steps,
            p.batch,
            p.threads,
            p.sample_ms / 1000,
            max(0.0, p.energy_j / max(p.sample_ms / 1000, 1e-9) - found.idle_w),
            max(0.0, 1.0 - p.distance),
            not found.method.energy.startswith("estimated"),
        )
        for p in points
    ]
    floor = max(0.0, 1.0 - usual[0] * math.exp(NOISE))
    return Offer((*offered, *_rungs(bundle, offered)), floor, calibrated=True)


def _rungs(bundle: Bundle, offered: Sequence[BoardPoint]) -> list[BoardPoint]:
    """Points of 0 steps, of which a calibration has no step to measure: what they take and are worth, in proportion to the
    model's first point, as the model's own measurements say."""
    first = bundle.manifest.operating_points[0]
    like = min((p for p in offered if (p.shipped, p.steps) == (0, first.steps)), key=lambda p: p.sample_s or 0.0, default=None)
    if like is None or like.sample_s is None or like.quality is None:
        return []
    found, cost, error = [], "cpu_ms_per_window", "crps"
    for place, point in enumerate(bundle.manifest.operating_points):
        if not point.steps and {cost, error} <= point.quality.keys() & first.quality.keys():
            took = like.sample_s * point.quality[cost] / first.quality[cost]
            quality = min(1.0, like.quality * first.quality[error] / point.quality[error])
            found.append(replace(like, shipped=place, steps=0, sample_s=took, quality=quality))
    return found


def unmeasured(bundle: Bundle, threads: int) -> BoardPoint:
    """The model's first operating point, of which nothing is known here."""
    first = bundle.manifest.operating_points[0]
    return BoardPoint(bundle.sha256, 0, first.steps, first.batch, threads)


def pin(folder: Path, point: BoardPoint) -> None:
    """Keeps the point of a job in its folder, durable and whole."""
    write_json(folder / _PINNED, asdict(point))


def pinned(folder: Path, bundle: Bundle) -> BoardPoint | None:
    """The point that a job has to go on with; None where it may have any: no checkpoint, or one of another model."""
    try:
        found = typed.read(read_json(folder / _PINNED), BoardPoint)
    except typed.Flaws:
        return None
    return found if found.model_sha256 == bundle.sha256 else None
