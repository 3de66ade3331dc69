"""Joules: power over time, by whatever the board has: its sensors, the calibration's model, or an estimate.

Between two readings power is taken as a straight line (trapezium rule, monotonic stamps). Where the readings are further
apart than a gap allows nothing is known, and nothing is counted.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Literal

from ..core.reading import Traits
from .board import Board

Method = Literal["rail", "model", "estimate"]
UNCERTAINTY: dict[Method, float] = {"rail": 0.05, "model": 0.2, "estimate": 0.5}
"""Half-widths as shares, allowances and no measurements: shunt and amplifier with a reading a second; a calibrated operating
point whose load and heat have changed since; a table's idle and full watts with the CPU time that was used."""
_GAP_PERIODS = 2.5
_PERIOD = 0.1


class MeterError(OSError):
    """A sensor that was there has stopped answering."""


@dataclass(frozen=True)
class Energy:
    """What some work took, the board's idling included."""

    joules: float
    method: Method
    uncertainty: float
    """Half-width as a share of the joules; what was not covered by readings is in it."""
    idle_j: float
    """The part that the board would have drawn without the work."""


class Integral:
    """Power over time. `period`: seconds between two readings, as they are meant to come."""

    def __init__(self, period: float):
        self._gap = _GAP_PERIODS * period
        self._last: tuple[float, float | None] | None = None
        self.joules = self.seconds = self.dropped_s = 0.0

    def add(self, at: float, power_w: float | None) -> None:
        """A reading, later than the one before. An interval with an end that is not known, or too long, is dropped."""
        if self._last and at > self._last[0]:
            before, dt = self._last[1], at - self._last[0]
            if before is None or power_w is None or dt > self._gap:
                self.dropped_s += dt
            else:
                self.joules += (before + power_w) / 2 * dt
                self.seconds += dt
        if not self._last or at >= self._last[0]:
            self._last = at, power_w

    def pause(self) -> None:
        """The work rests: time until the next reading is not its own."""
        self._last = None

    def energy(self, idle_w: float) -> Energy | None:
        """So far, by the rails; None where no interval is known."""
        if not self.seconds:
            return None
        missing = self.dropped_s / (self.seconds + self.dropped_s)
        return Energy(self.joules, "rail", round(UNCERTAINTY["rail"] + missing, 3), idle_w * self.seconds)


def modelled(busy_w: float, idle_w: float, seconds: float) -> Energy:
    """By the calibration: busy_w is what the operating point was measured to draw above idle."""
    return Energy((idle_w + busy_w) * seconds, "model", UNCERTAINTY["model"], idle_w * seconds)


def estimated(traits: Traits, cpu_s: float, seconds: float) -> Energy:
    """By the board's idle and full watts and the CPU time that the work used, of all cores."""
    joules = traits.idle_w * seconds + _core_w(traits) * cpu_s
    return Energy(joules, "estimate", UNCERTAINTY["estimate"], traits.idle_w * seconds)


class Meter:
    """Mean power between `start` and `stop`, for measurements: the board's sensors ten times a second, else an estimate."""

    def __init__(self, board: Board):
        traits = board.traits
        self._board, self._traits = board, traits
        self.measured = traits.has_power
        """False where it is an estimate."""
        self.method = traits.power_from or (
            f"estimated: {traits.idle_w:.3g} W and {_core_w(traits):.3g} W per busy core, as this board shows no power sensor "
            "that we may read"
        )
        """Where the figure comes from, in words."""
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = 0.0, 0.0
        self._integral = Integral(1.0)
        self._seen: float | None = None

    def start(self) -> None:
        """Begins."""
        self._began = time.monotonic(), time.process_time()
        if self.measured:
            self._board.read(self._began[0])  # energy counters count from here
            self._integral, self._seen = Integral(1.0), None
            self._halt.clear()
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()

    def stop(self) -> float:
        """Watts, mean since `start`; `MeterError` where the sensor did not answer."""
        now, cpu = time.monotonic(), time.process_time()
        if not self._thread:
            seconds = max(now - self._began[0], 1e-6)
            return estimated(self._traits, min(cpu - self._began[1], seconds * _cores()), seconds).joules / seconds
        self._halt.set()
        self._thread.join()
        self._thread = None
        self._take()
        if self._integral.seconds:
            return self._integral.joules / self._integral.seconds
        if self._seen is None:
            raise MeterError(f"{self.method}: no answer")
        return self._seen

    def _sample(self) -> None:
        while not self._halt.wait(_PERIOD):
            self._take()

    def _take(self) -> None:
        reading = self._board.read(time.monotonic())
        self._integral.add(reading.at, reading.power_w)
        self._seen = reading.power_w if reading.power_w is not None else self._seen


def _cores() -> int:
    return os.cpu_count() or 1


def _core_w(traits: Traits) -> float:
    return (traits.full_w - traits.idle_w) / _cores()
