"""`denoised models bench`: every operating point that a model ships with, on this machine, side by side with float32."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ...config.refusal import Refusal
from ...config.tree import Config
from ...engines.bundle import Bundle, BundleError, Manifest
from ...engines.engine import EngineError
from ...plugins.kind import load_kinds
from ..board.board import find_board
from ..board.energy import Meter
from ..calibration import Method
from ..core.frontier import Point, Quality, Speed, points
from .calibrate import compute_as_the_worker, table
from .progress import Progress

if TYPE_CHECKING:
    from ..measure import Measurer

_ROUNDS = 2
"""The variants take turns; the faster round counts."""


@dataclass(frozen=True)
class Row:
    """A shipped operating point and what it costs here. fp32: the float32 point of the same sampler, steps and batch."""

    point: Point
    fp32: Point | None

    def shares(self) -> dict[str, float | None]:
        """Time and energy over those of float32; None where there is no such point."""
        a, b = self.point, self.fp32
        if b is None:
            return {"sample_ms_of_fp32": None, "energy_of_fp32": None}
        return {
            "sample_ms_of_fp32": round(a.sample_ms / max(b.sample_ms, 1e-9), 3),
            "energy_of_fp32": round(a.energy_j / max(b.energy_j, 1e-9), 3),
        }


@dataclass(frozen=True)
class Bench:
    """What was measured of one model."""

    bundle: Bundle
    method: Method
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        m = self.bundle.manifest
        points = [{**asdict(row.point), **row.shares()} for row in self.rows]
        return {"name": m.name, "version": m.version, "method": asdict(self.method), "points": points}

    def lines(self) -> list[str]:
        """For people."""
        m = self.bundle.manifest
        header, *lines = table([row.point for row in self.rows])
        shares = ["".join(f" {'-' if s is None else f'{s:.2f}':>9}" for s in row.shares().values()) for row in self.rows]
        out = [f"{m.name} {m.version}; energy {self.method.energy}", f"{header} {'time/fp32':>9} {'J/fp32':>9}"]
        return out + [line + share for line, share in zip(lines, shares)]


def bench(config: Config, bundles: Sequence[Bundle]) -> tuple[list[Bench], list[str]]:
    """Every model that can be measured, and why the others cannot."""
    compute_as_the_worker()
    from ..measure import Measurer, disturbance

    if found := disturbance():
        print(f"denoised models: {found}", file=sys.stderr)
    kinds, meter = load_kinds(), Meter(find_board(config.board))
    out, problems = [], []
    for bundle in bundles:
        manifest = bundle.manifest
        if manifest.kind not in kinds:
            problems.append(f"{manifest.name}: no job kind '{manifest.kind}' is installed")
            continue
        try:
            measurer = Measurer(config, kinds[manifest.kind], bundle, meter)
            out.append(Bench(bundle, measurer.method, _rows(measurer, manifest)))
            measurer.close()
        except (BundleError, EngineError, Refusal, OSError) as e:
            problems.append(f"{manifest.name}: {e}")
    return out, problems


def _rows(measurer: Measurer, manifest: Manifest) -> tuple[Row, ...]:
    shipped, threads = measurer.points, measurer.threads[0]
    qualities, speeds = list[Quality](), dict[tuple[int, int], Speed]()
    way_of = [measurer.way_of(p) for p in shipped]
    ways = list(dict.fromkeys(zip(way_of, (p.batch for p in shipped))))
    total = len(shipped) + _ROUNDS * len(ways)
    with Progress(f"bench {manifest.name}") as progress:
        for place, p in zip(way_of, shipped):
            progress.show(len(qualities) / total, f"{p.variant} {p.sampler}, {p.steps} steps")
            qualities.append(measurer.quality(place, p.steps))
        for turn in range(_ROUNDS):
            for number, way in enumerate(ways):
                p, done = manifest.operating_points[way[0]], len(shipped) + turn * len(ways) + number
                progress.show(done / total, f"{p.variant} {p.sampler}, batch {way[1]}")
                found = measurer.speed(*way, threads)
                speeds[way] = min(speeds.get(way, found), found, key=lambda s: s.step_ms)
    costs = {(p.shipped, p.steps, p.batch): p for p in points(qualities, list(speeds.values()))}
    rows = []
    for place, p in zip(way_of, shipped):
        fp32 = measurer.way_of(replace(p, variant="fp32"))
        rows.append(Row(costs[place, p.steps, p.batch], costs.get((fp32, p.steps, p.batch))))
    return tuple(rows)
