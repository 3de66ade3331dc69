"""A simulated hydraulic press with its cooling circuit: six sensors that depend on each other, and a link that loses samples.

Each stroke approaches fast, presses against a part of random hardness, holds and returns. The pump's current follows
pressure and flow; what it loses heats the oil; a thermostat lets coolant take the heat away; the machine shakes with the
flow and when it hits the part. Sensors add noise and the resolution of their converters. Everything is a function of the
seed; nothing is lost in silence: every row holds the truth beside what the link delivered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TAGS = ("motor_current_a", "pressure_bar", "flow_lpm", "oil_temp_c", "coolant_temp_c", "vibration_mm_s")
_NOISE = (0.25, 1.2, 0.5, 0.04, 0.05, 0.06)
_RESOLUTION = (0.05, 0.5, 0.1, 0.01, 0.01, 0.01)
_PHASES = (("approach", 1.4), ("press", 0.9), ("hold", 1.6), ("return", 1.3), ("load", 1.2))
"""What a stroke consists of, and how long each part takes in seconds."""


@dataclass(frozen=True)
class Row:
    """One sample of the group: truth and what was delivered (None where lost), in the order of TAGS; t_s since the start."""

    t_s: float
    truth: tuple[float, ...]
    delivered: tuple[float | None, ...]


class Plant:
    """The press, advanced by one sample period per row."""

    tags = TAGS

    def __init__(self, seed: int = 0, period_s: float = 0.2):
        self._rng = np.random.default_rng([seed, 1])
        self._link = Link(seed, len(TAGS), period_s)
        self._period, self._t = period_s, 0.0
        self._phase, self._left, self._hardness = 0, _PHASES[0][1], 1.0
        self._pressure, self._flow, self._oil, self._coolant = 12.0, 20.0, 44.0, 27.0
        self._cooling, self._shock = False, 0.0

    def rows(self, count: int) -> list[Row]:
        """The next `count` rows."""
        return [self.step() for _ in range(count)]

    def step(self) -> Row:
        """The next row."""
        self._stroke()
        lost = self._link.step()
        flow, pressure = self._flow, self._pressure
        current = 9 + 0.085 * pressure + 0.12 * flow + 0.0016 * pressure * flow
        vibration = 0.5 + 0.022 * flow + 0.05 * max(current - 20, 0) + self._shock
        clean = np.array([current, pressure, flow, self._oil, self._coolant, vibration])
        noisy = clean + self._rng.standard_normal(len(TAGS)) * _NOISE
        truth = tuple(float(round(round(v / r) * r, 3)) for v, r in zip(noisy, _RESOLUTION))
        row = Row(round(self._t, 6), truth, tuple(None if gone else v for v, gone in zip(truth, lost)))
        self._t += self._period
        return row

    def _stroke(self) -> None:
        """Hydraulics and heat over one period, in small steps."""
        count = max(1, round(self._period / 0.02))
        dt = self._period / count
        for _ in range(count):
            self._left -= dt
            if self._left <= 0:
                self._next_phase()
            name = _PHASES[self._phase][0]
            wanted_flow = {"approach": 42.0, "press": 18.0, "hold": 4.0, "return": 46.0, "load": 9.0}[name]
            peak = 165.0 * self._hardness
            wanted_pressure = {"approach": 28.0, "press": peak, "hold": 0.93 * peak, "return": 34.0, "load": 12.0}[name]
            self._flow += (wanted_flow - self._flow) * min(1.0, dt / 0.22)
            self._pressure += (wanted_pressure - self._pressure) * min(1.0, dt / 0.30)
            self._shock *= 1 - min(1.0, dt / 0.15)
            loss = 0.0006 * self._pressure * (8 + self._flow)  # throttled in the valves
            taken = (0.30 if self._cooling else 0.03) * (self._oil - self._coolant)
            self._oil += dt * (loss - taken) / 12
            self._coolant += dt * (0.8 * taken - 0.22 * (self._coolant - 22)) / 8
            if self._oil > 47.5:
                self._cooling = True
            elif self._oil < 44.5:
                self._cooling = False

    def _next_phase(self) -> None:
        self._phase = (self._phase + 1) % len(_PHASES)
        name, usual = _PHASES[self._phase]
        self._left = usual * float(np.exp(0.08 * self._rng.standard_normal()))
        if name == "approach":  # the next part
            self._hardness = float(np.clip(1 + 0.12 * self._rng.standard_normal(), 0.7, 1.3))
        if name == "press":
            self._shock = 1.4 * self._hardness


class Link:
    """What is lost on the way: single samples, one sensor for a while, and now and then the whole group."""

    def __init__(self, seed: int, tags: int, period_s: float):
        self._rng, self._tags, self._period = np.random.default_rng([seed, 2]), tags, period_s
        self._silent = np.zeros(tags, int)
        self._next_block, self._next_group = self._soon(6), self._soon(16)

    def _soon(self, seconds: float) -> int:
        return round(seconds * float(self._rng.uniform(0.7, 1.3)) / self._period)

    def step(self) -> list[bool]:
        """For each tag, whether this sample is lost."""
        self._next_block -= 1
        self._next_group -= 1
        if self._next_block <= 0:
            self._silent[self._rng.integers(self._tags)] = max(2, round(float(self._rng.uniform(1.5, 5)) / self._period))
            self._next_block = self._soon(7)
        if self._next_group <= 0:
            self._silent[:] = np.maximum(self._silent, max(2, round(float(self._rng.uniform(1, 2.4)) / self._period)))
            self._next_group = self._soon(18)
        lost = (self._silent > 0) | (self._rng.random(self._tags) < 0.03)
        self._silent = np.maximum(self._silent - 1, 0)
        return [bool(gone) for gone in lost]
