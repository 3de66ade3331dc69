"""One sensor group: keeps the last window, notices gaps and says what to publish. Pure: the time comes in as an argument.

Time is cut into slots of one period; slot n is [n * period, (n + 1) * period) and its measurement is due when it ends.
A tag without a usable measurement in a slot is a gap; half of `max_latency` after the slot's end the gap is imputed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .reply import stamp

_ROUNDING = 1e-3
"""Of a slot: the time that we publish with a sample, a whole number of periods after 1970, falls into its own slot."""


@dataclass(frozen=True)
class Sample:
    """One value of the repaired stream."""

    tag: str
    at: float
    value: float | None
    quality: str
    q05: float | None = None
    q95: float | None = None

    def message(self) -> dict[str, Any]:
        """As the plant contract, section 4, has it."""
        out: dict[str, Any] = {"t": stamp(self.at), "value": self.value, "quality": self.quality}
        if self.q05 is not None:
            out |= {"q05": self.q05, "q95": self.q95}
        return out


@dataclass(frozen=True)
class Repair:
    """A window that ends with a slot full of gaps: rows are slots, columns tags, None is missing."""

    slot: int
    values: list[list[float | None]]


@dataclass
class _Slot:
    number: int
    measured: dict[str, float] = field(default_factory=dict)
    owed: set[str] = field(default_factory=set)
    """Tags whose gap is known and not answered yet."""
    answered: set[str] = field(default_factory=set)


class Group:
    """The state of one group; `config` is its `SensorGroup`."""

    def __init__(self, name: str, config: Any, now: float):
        self.name, self.config = name, config
        self.tags = list(config.tags)
        self._slots: deque[_Slot] = deque([_Slot(self._slot_of(now))], maxlen=config.window)
        self._recent: dict[str, deque[float]] = {
            t: deque(maxlen=c.stuck_after) for t, c in config.tags.items() if c.stuck_after
        }
        self._closed = self._slots[-1].number - 1
        self._measured = False
        self.gaps = 0
        self.late = 0

    def _slot_of(self, at: float) -> int:
        period: float = self.config.period
        return math.floor(at / period + _ROUNDING)

    @property
    def due(self) -> float:
        """When `close` has to be called next."""
        period: float = self.config.period
        latency: float = self.config.max_latency
        return (self._closed + 2) * period + latency / 2

    def measure(self, tag: str, value: Any, now: float, at: float | None = None) -> Sample | None:
        """A measurement came in (`at`: its own time where it has one). What to publish, or None where it is not usable."""
        number = self._slot_of(now if at is None else at)
        usable = self._usable(tag, value)
        self._advance(self._slot_of(now))
        slot = next((s for s in reversed(self._slots) if s.number == number), None)
        if usable is None or slot is None or tag in slot.measured:
            return None
        slot.measured[tag] = usable
        self._measured = True
        self.late += tag in slot.answered
        return Sample(tag, number * self.config.period, usable, "good")

    def close(self, now: float) -> Repair | None:
        """Ends the slots that are due by `now`; the window to impute where one of them has gaps.

        Before the first measurement there is nothing to repair. A repair that does not come in time is no loss: its gaps
        stay owed and are answered by the next one, whose window holds them too.
        """
        self._advance(self._slot_of(now))
        newest = self._slot_of(now - self.config.max_latency / 2) - 1
        if newest <= self._closed:
            return None
        rows = [s for s in self._slots if s.number <= newest]
        fresh = [s for s in rows if s.number > self._closed and len(s.measured) < len(self.tags)]
        self._closed = newest
        if not fresh or not self._measured:
            return None
        for slot in fresh:
            slot.owed.update(t for t in self.tags if t not in slot.measured)
            self.gaps += len(slot.owed)
        return Repair(newest, [[s.measured.get(t) for t in self.tags] for s in rows])

    def repaired(self, repair: Repair, output: Mapping[str, Any]) -> list[Sample]:
        """What to publish once the kind has answered: every gap that is still owed in the repair's window."""
        uncertain, low, high = set(output.get("uncertain", ())), output["quantiles"]["0.05"], output["quantiles"]["0.95"]
        samples = []
        for row, slot, k, tag in self._owed(repair):
            quality = "uncertain" if tag in uncertain else "imputed"
            value, q05, q95 = (self._plausible(tag, v[row][k]) for v in (output["values"], low, high))
            samples.append(Sample(tag, slot * self.config.period, value, quality, q05, q95))
        return samples

    def unrepaired(self, repair: Repair) -> list[Sample]:
        """What to publish where no imputation came: the gaps, said so."""
        return [Sample(tag, slot * self.config.period, None, "bad") for _, slot, _, tag in self._owed(repair)]

    def _owed(self, repair: Repair) -> list[tuple[int, int, int, str]]:
        """(row of the repair, slot number, column, tag) of every gap up to the repair that nobody has answered; now it is."""
        out, first = [], repair.slot - len(repair.values) + 1
        for slot in self._slots:
            if first <= slot.number <= repair.slot:
                row = slot.number - first
                out += [(row, slot.number, k, t) for k, t in enumerate(self.tags) if t in slot.owed - slot.measured.keys()]
                slot.answered |= slot.owed
                slot.owed = set()
        return out

    def _plausible(self, tag: str, value: float) -> float:
        """Inside what the config says the sensor can show: a flow is not negative, whatever a wide band says."""
        config = self.config.tags[tag]
        value = value if config.low is None else max(value, config.low)
        return value if config.high is None else min(value, config.high)

    def _usable(self, tag: str, value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        config = self.config.tags[tag]
        if (config.low is not None and value < config.low) or (config.high is not None and value > config.high):
            return None
        recent = self._recent.get(tag)
        if recent is not None:
            stuck = len(recent) == recent.maxlen and all(v == value for v in recent)
            recent.append(value)
            if stuck:
                return None
        return float(value)

    def _advance(self, number: int) -> None:
        last = self._slots[-1].number
        if number - last > self.config.window or number < last - self.config.window:  # a long silence, or the clock jumped
            self._slots.clear()
            self._slots.append(_Slot(number))
            self._closed = min(self._closed, number - 1) if number < last else max(self._closed, number - 2)
            return
        for n in range(last + 1, number + 1):
            self._slots.append(_Slot(n))
