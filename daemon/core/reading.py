"""What a board says of itself at one moment, and what it is: the words that boards and governor share. Pure.

A sensor that does not answer is None, never a number, and its reason stands in `problems`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """One look at every sensor of a board. `at` is monotonic seconds."""

    at: float
    temp_c: float | None
    """The zone that throttles first: the one to control."""
    zones_c: Mapping[str, float | None] = field(default_factory=dict)
    power_w: float | None = None
    """All that the board's rails carry; None where it has no rail or one of them did not answer."""
    rails_w: Mapping[str, float | None] = field(default_factory=dict)
    speed: float | None = None
    """Clock now, as a share of the top clock."""
    throttled: bool | None = None
    """The board slows itself down now, for heat or supply."""
    throttle_events: int | None = None
    """Since boot where the board counts (one that only remembers that it happened says 1), else as often as we saw it begin."""
    under_voltage: bool | None = None
    under_voltage_events: int | None = None
    over_current_events: int | None = None
    fan: float | None = None
    """0 still to 1 full."""
    mode: str | None = None
    """The power mode's name (nvpmodel)."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What did not answer, and why."""


@dataclass(frozen=True)
class Traits:
    """What stays the same while the board is up. Figures are where the governor's model starts, to be learnt better."""

    kind: str
    """generic, jetson, raspberry-pi or simulated."""
    name: str
    throttle_c: float
    """Where the board starts to slow itself down."""
    critical_c: float
    """Where it switches itself off."""
    has_power: bool
    """A rail can be read."""
    clocks: tuple[float, ...] = (1.0,)
    """Clock caps that may be set, as shares of the top clock, ascending; (1.0,) where we have no right to set one."""
    idle_w: float = 3.0
    full_w: float = 8.0
    """All cores, or the GPU, busy at the top clock."""
    die_k_per_w: float = 1.5
    die_s: float = 4.0
    sink_k_per_w: float = 6.0
    sink_s: float = 150.0
    """Two stages, resistance and time constant each (die to sink, sink to air)."""
    power_from: str = ""
    """What `power_w` is read at, in words; empty where no sensor may be read."""
    limit_w: float | None = None
    """Past it the board's own over-current protection slows it down."""
    supply_a: float | None = None
    """What the power supply has promised, where the board asked it (Raspberry Pi 5: 5 or 3 A)."""
