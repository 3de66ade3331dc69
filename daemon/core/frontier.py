"""Which operating points of a board are worth choosing: those that no other beats in time, energy and quality at once.

A denoising job is many equal steps, so a point need not be run to be priced: the distance depends on the way and the steps,
the time of a step on the way, batch and threads; both are measured (`Quality`, `Speed`) and multiplied out. A way is what a
bundle ships as variant, sampler, the sampler's own choices and guidance together: `shipped` is the place of the first such
operating point in its `model.yaml`.
A sample is one row of the network's batch. A point is dominated where another is at least as good in all three and better
in one (Pareto); differences below what can be measured do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Place = Annotated[int, Meta(ge=0)]
Cost = Annotated[float, Meta(ge=0)]
NOISE = 0.05
"""Costs are compared on a logarithmic grid of this width, so that noise brings no point to the frontier."""


@dataclass(frozen=True)
class Quality:
    """distance: RMS difference from many float32 steps at equal seeds, over the RMS of those. rest_ms: a sample's time
    outside the loop."""

    variant: str
    sampler: str
    steps: Count
    distance: Cost
    rest_ms: Cost
    shipped: Place = 0


@dataclass(frozen=True)
class Speed:
    """step_ms: one step of the whole batch. power_w: the mean while steps are taken."""

    variant: str
    sampler: str
    batch: Count
    threads: Count
    step_ms: Cost
    power_w: Cost
    shipped: Place = 0


@dataclass(frozen=True)
class Point:
    """An operating point of this board and what it costs. step_ms: what a more urgent job waits at most."""

    variant: str
    sampler: str
    steps: Count
    batch: Count
    threads: Count
    step_ms: Cost
    sample_ms: Cost
    energy_j: Cost
    """Of one sample."""
    distance: Cost
    shipped: Place = 0


def points(qualities: Sequence[Quality], speeds: Sequence[Speed]) -> list[Point]:
    """Every combination of what was measured for the same way.

    What a job does outside the loop is the same work everywhere: the least that was seen counts.
    """
    out, rest_ms = [], min((q.rest_ms for q in qualities), default=0.0)
    for q in qualities:
        for s in speeds:
            if (q.variant, q.sampler, q.shipped) == (s.variant, s.sampler, s.shipped):
                ms = rest_ms + q.steps * s.step_ms / s.batch
                costs = s.step_ms, ms, s.power_w * ms / 1000, q.distance
                out.append(Point(q.variant, q.sampler, q.steps, s.batch, s.threads, *costs, q.shipped))
    return out


def frontier(candidates: Iterable[Point]) -> tuple[Point, ...]:
    """Those that no other dominates, fastest first; of points that cost the same, the one with the lower figures."""
    best: list[Point] = []
    for point in sorted(candidates, key=lambda p: (*costs(p), p.sample_ms, p.energy_j, p.distance)):
        # A later one in this order never dominates an earlier one, and one that costs the same adds nothing.
        if not any(all(a <= b for a, b in zip(costs(kept), costs(point))) for kept in best):
            best.append(point)
    return tuple(best)


def costs(point: Point) -> tuple[int, int, int]:
    """Time, energy and distance on the grid."""
    time, energy, distance = (round(math.log(max(c, 1e-9)) / NOISE) for c in (point.sample_ms, point.energy_j, point.distance))
    return time, energy, distance
