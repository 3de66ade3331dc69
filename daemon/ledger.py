"""Joules: what the board took today and this month, kept over restarts, and what each job took."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .board.energy import UNCERTAINTY, Energy, Integral, Method, estimated, modelled
from .core.job import Entry
from .core.reading import Traits
from .durable import read_json, write_json

log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""A board that does not answer is found out after some periods, and counted by the model from then on: no gap is left."""
_STORE_S, _STORE_IDLE_S = 600.0, 3600.0
"""Between two writes, where jobs have run since and where none has: flash wears out."""
_KEEP = 62
"""Days and months that are remembered: a clock that was wrong for a while must not cost the totals of today."""
_COVERED = 0.5
"""Share of a job that readings must cover to speak for the rest of it."""


class Ledger:
    """Used by one thread. `wall`: seconds since 1970; days are local ones. `period`: between two readings."""

    def __init__(self, path: Path, period: float, tick: float):
        self._path = path
        found = read_json(path)
        self._days, self._months = _sums(found.get("days")), _sums(found.get("months"))
        self._integral, self._counted_j = Integral(_PATIENCE * period), 0.0
        self._worked, self._stored_at = False, tick
        self.method: Method = "estimate"
        """Where the last watts came from."""

    def add(self, at: float, power_w: float, method: Method, wall: float) -> None:
        """What the whole board draws at this monotonic time."""
        self.method = method
        self._integral.add(at, power_w)
        fresh, self._counted_j = self._integral.joules - self._counted_j, self._integral.joules
        for sums, name in ((self._days, _day(wall)), (self._months, _day(wall)[:7])):
            sums[name] = sums.get(name, 0.0) + fresh
            while len(sums) > _KEEP:
                del sums[min(sums.keys() - {name})]

    def today_j(self, wall: float) -> float:
        """Since midnight."""
        return self._days.get(_day(wall), 0.0)

    def told(self, wall: float) -> dict[str, Any]:
        """For the telemetry."""
        month_j = self._months.get(_day(wall)[:7], 0.0)
        return {"today_j": round(self.today_j(wall), 1), "month_j": round(month_j, 1), "method": self.method}

    def worked(self) -> None:
        """A job has run: the totals are worth writing sooner."""
        self._worked = True

    def store(self, tick: float, now: bool = False) -> None:
        """Writes the totals now and then, or now; a disk that does not take them costs no more than them."""
        if not now and tick - self._stored_at < (_STORE_S if self._worked else _STORE_IDLE_S):
            return
        self._stored_at, self._worked = tick, False
        try:
            write_json(self._path, {"days": _rounded(self._days), "months": _rounded(self._months)})
        except OSError as e:
            log.warning("%s: the energy totals are not stored: %s", self._path, e.strerror)


def energy_of(entry: Entry, facts: Mapping[str, Any], traits: Traits) -> dict[str, Any]:
    """`energy_j` and `energy` of a job's result: by the rails where readings cover it, else by the calibration, else a guess.

    facts: the worker's. Where nothing ran, nothing was taken.
    """
    run_s = (entry.spent_ms + facts.get("run_ms", 0)) / 1000
    if run_s <= 0:
        return {}
    found, meter = None, entry.meter
    if meter is not None and meter.seconds >= _COVERED * run_s and (read := meter.energy(traits.idle_w)):
        share = run_s / meter.seconds
        found = Energy(read.joules * share, read.method, read.uncertainty, read.idle_j * share)
    elif entry.point is not None and entry.point.busy_w is not None:
        busy_share = max(0.0, 1 - facts.get("paced_s", 0.0) / run_s)
        found = modelled(busy_share * entry.point.busy_w, traits.idle_w, run_s)
        if not entry.point.metered:  # watts that the calibration itself had to guess
            found = replace(found, method="estimate", uncertainty=UNCERTAINTY["estimate"])
    else:
        found = estimated(traits, facts.get("cpu_s", 0.0), run_s)
    told = {
        "method": found.method,
        "uncertainty_j": round(found.joules * found.uncertainty, 3),
        "per_sample_j": round(found.joules / max(1, entry.job.items), 4),
        "idle_j": round(found.idle_j, 3),
    }
    return {"energy_j": round(found.joules, 3), "energy": told}


def _day(wall: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(wall))


def _sums(found: Any) -> dict[str, float]:
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {str(k): float(v) for k, v in pairs if isinstance(v, (int, float)) and 0 <= v < 1e15}


def _rounded(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: round(joules, 1) for name, joules in sums.items()}
