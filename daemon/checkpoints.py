"""What a job has reached, on disk: the results of its finished problems and the checkpoint of the one in hand.

A job that was parked, crashed or lost its power goes on from there and ends in the same bytes. How often to write is a
balance: Young 1974, "A first order approximation to the optimum checkpoint interval", held down by a flash-wear budget.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..engines.denoise import Checkpoint
from .points import BoardPoint, pin

_FIRST_GUESS_S = 0.02
"""What a write costs before one has been timed."""


def interval(write_s: float, size: int, budget_per_day: float, uptime_s: float) -> float:
    """Seconds between two checkpoints: sqrt(2 * cost * mean time to failure), and never more bytes than the budget allows."""
    return max(math.sqrt(2 * write_s * uptime_s), size * 86400 / budget_per_day)


class Checkpoints:
    """One job's folder. `count` and `current` are what an earlier run of the very same job left, else 0 and None.

    From its first checkpoint on the job is held to `point`.
    """

    def __init__(self, folder: Path, identity: Any, budget_per_day: float, uptime_s: float, point: BoardPoint | None = None):
        self._folder, self._budget, self._uptime = folder, budget_per_day, uptime_s
        self._name = hashlib.sha256(msgspec.json.encode(identity, order="deterministic")).hexdigest()[:16]
        self._point = point
        self._write_s, self._size = _FIRST_GUESS_S, 0
        self._last = time.monotonic()
        self.written = 0
        """Bytes written since this run of the job began."""
        self.count = 0
        """Finished problems whose results are there."""
        while self.result(self.count) is not None:
            self.count += 1
        current = self._read("current")
        behind = current is not None and int(current["after"]) == self.count
        self.current = _whole(current) if current is not None and behind else None

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._last >= interval(self._write_s, self._size, self._budget, self._uptime)

    def result(self, n: int) -> np.ndarray | None:
        """The result of problem n, where it is there and whole."""
        found = self._read(f"result-{n}")
        return None if found is None else found["x"]

    def keep(self, fresh: list[np.ndarray], current: Checkpoint | None) -> None:
        """Writes the results that came since the last time (and takes them off the list), then the checkpoint behind them."""
        began, size = time.monotonic(), 0
        self._last = began  # a write that fails is not tried again at once
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._point is not None:  # first, as a checkpoint is of no use at another point
            pin(self._folder, self._point)
            self._point = None
        while fresh:
            size += self._write(f"result-{self.count}", {"x": fresh[0]})
            fresh.pop(0)
            self.count += 1
        if current is not None:
            size += self._write("current", {"after": np.int64(self.count), "step": np.int64(current.step), **_flat(current)})
        self._last = time.monotonic()
        self._write_s, self._size = self._last - began, size
        self.written += size

    def _write(self, name: str, arrays: dict[str, Any]) -> int:
        """Durable and whole, or not there at all."""
        part, final = self._folder / f"{name}.part", self._folder / f"{self._name}-{name}.npz"
        with part.open("wb") as f:
            np.savez(f, **arrays)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, final)
        return final.stat().st_size

    def _read(self, name: str) -> dict[str, np.ndarray] | None:
        try:
            with np.load(self._folder / f"{self._name}-{name}.npz", allow_pickle=False) as found:
                return {key: found[key] for key in found.files}
        except Exception:  # not there, cut short, or with a flipped bit, of which zipfile makes any error: then earlier
            return None


def _flat(at: Checkpoint) -> dict[str, Any]:
    """x and the sampler's memory (None, or a tuple of floats and arrays) as named arrays."""
    memory = {} if at.memory is None else {f"memory-{i}": np.asarray(part) for i, part in enumerate(at.memory)}
    return {"x": at.x, **memory}


def _whole(found: dict[str, np.ndarray]) -> Checkpoint:
    parts = [found[f"memory-{i}"] for i in range(sum(key.startswith("memory-") for key in found))]
    memory = tuple(part if part.ndim else part.item() for part in parts) or None
    return Checkpoint(int(found["step"]), found["x"], memory)
