"""Any Linux board: thermal zones, trip points, cpufreq, power sensors and fan by name. Jetson and Raspberry Pi stand on it.

Sensors are looked for again when one has gone and once a minute, as drivers come late and numbers move. Every board keeps
what it must count by itself: how often throttling began.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from ..core.reading import Reading, Traits
from .clocks import Cap, Clock, cpu_clocks, speed
from .power import Source, Watts, find_counters, find_rails
from .sysfs import Look, Zone, chips, coolers, hwmon_zones, model, outside, peek, quantity, zones

_AGAIN_AFTER = 60.0
_COMPUTES = re.compile(r"cpu|gpu|soc|pkg|package|core|big|little|npu|^tj|^die")
"""Zones of what computes; a board's radio or charger may be as hot as it likes."""
_SLOWS = re.compile(r"cpu|gpu|devfreq|processor|throttle|powerclamp|ga10b|gv11b")
"""Cooling devices that slow the work down, unlike fans."""
_THROTTLE_C, _CRITICAL_C = 85.0, 100.0
"""Where a board that tells no trip point is taken to slow down: a guess that most silicon stands."""
_MARGIN_C = 10.0
IDLE_W, FULL_W = 3.0, 8.0
"""A small fanless board; it is learnt better from the first minutes on."""


class Occurred:
    """How often something began: what the board remembers from before we looked, and every beginning that we saw."""

    def __init__(self) -> None:
        self._count, self._before = 0, False

    def see(self, now: bool | None, remembered: bool = False) -> int:
        """The count after this look. remembered: the board says that it has happened since boot."""
        if now is not None:
            self._count += now and not self._before
            self._before = now
        self._count = max(self._count, int(remembered))
        return self._count


class Generic:
    """A board that the kernel describes by itself."""

    kind = "generic"

    def __init__(self, sysfs: Path, keep: Path | None = None):
        self.sysfs = sysfs
        self._throttles = Occurred()
        self._look_gone = True
        self._gone: set[Path] = set()
        self._control: list[Zone] = []
        self._power: Source | None = None
        self._find(0.0)
        self._cap = Cap(self._clocks, keep)
        self.traits = self._traits()

    def read(self, now: float) -> Reading:
        """One look at every sensor. now: monotonic seconds."""
        if self._look_gone or not 0 <= now - self._found_at < _AGAIN_AFTER:
            self._find(now)
            self._cap.watch(self._clocks)
            self._renew_traits()
        look = Look()
        reading = self._reading(look, now)
        # One that has gone for good is looked for with all others, once a minute.
        self._look_gone, self._gone = not look.gone <= self._gone, look.gone
        self._cap.throttled = bool(reading.throttled)
        return replace(reading, problems=look.problems)

    def cap_clock(self, share: float) -> str | None:
        """Holds every clock at or below this share of its top until the next call or exit; None, or why it could not."""
        return self._cap.set(share)

    def close(self) -> None:
        """Gives the clocks back."""
        self._cap.release()

    def _find(self, now: float) -> None:
        """Looks for every sensor. A subclass adds its own."""
        self._found_at = now
        before, self._zones = self._control, zones(self.sysfs)
        # A zone that we held on to and that is gone is a sensor that does not answer, not a reason to trust the radio's.
        self._zones += [z for z in before if z.name not in {found.name for found in self._zones}]
        self._control = self._control_zones()
        self._clocks = self._find_clocks()
        if self._look_gone or self._power is None:  # one that answers keeps what it remembers
            power = self._find_power(now)
            # Another sum than before would be another quantity: a rail that has gone is one that does not answer.
            self._power = power if self._power is None or (power and power.words == self._power.words) else self._power
        self._slowing = [f for kind, f in coolers(self.sysfs) if _SLOWS.search(kind) and "fan" not in kind]
        self._counts = sorted(self.sysfs.glob("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"))
        self._fan = self._find_fan()
        self._look_gone = False

    def _control_zones(self) -> list[Zone]:
        computing = [z for z in self._zones if _COMPUTES.search(z.name)]
        if not computing:
            computing = hwmon_zones(self.sysfs)
            self._zones += [z for z in computing if z.name not in {other.name for other in self._zones}]
        return computing or self._zones

    def _find_clocks(self) -> list[Clock]:
        return cpu_clocks(self.sysfs)

    def _find_power(self, now: float) -> Source | None:
        return find_rails(self.sysfs) or find_counters(self.sysfs)

    def _find_fan(self) -> tuple[Path, float] | None:
        """(file, its value at full speed)."""
        for chip in chips(self.sysfs, "pwmfan"):
            if (chip / "pwm1").exists():
                return chip / "pwm1", 255.0
        for kind, folder in coolers(self.sysfs):
            if "fan" in kind and (most := quantity(folder / "max_state")):
                return folder / "cur_state", most
        return None

    def _reading(self, look: Look, now: float) -> Reading:
        temps = {z.name: look.celsius(z.temp, f"zone {z.name}") for z in self._zones}
        if not self._zones:
            look.problems["temperature"] = f"{self.sysfs}/class/thermal: no thermal zone, and no sensor of a processor in hwmon"
        known = [t for z in self._control if (t := temps.get(z.name)) is not None]
        watts = self._power.read(look, now) if self._power else Watts(None, {})
        throttled, events = self._throttling(look)
        fan = look.number(self._fan[0], "fan", "steps", 0, self._fan[1]) if self._fan else None
        return Reading(
            at=now,
            temp_c=max(known, default=None),
            zones_c=temps,
            power_w=watts.total,
            rails_w=watts.rails,
            speed=self._speed(look),
            throttled=throttled,
            throttle_events=events,
            fan=fan / self._fan[1] if self._fan and fan is not None else None,
        )

    def _speed(self, look: Look) -> float | None:
        """Of the fastest cores."""
        return speed(look, self._clocks[0]) if self._clocks else None

    def _throttling(self, look: Look) -> tuple[bool | None, int | None]:
        """Whether the kernel slows the board down now, and how often it began to."""
        states = [look.number(f / "cur_state", f"cooling {f.name}", "steps", -1, 1e6) for f in self._slowing]
        now = None if not states or all(s is None for s in states) else any(s is not None and s > 0 for s in states)
        counted = [look.number(c, "throttle count", "events", 0, 1e12) for c in self._counts]
        if any(c is not None for c in counted):
            return now, int(max(c for c in counted if c is not None))  # siblings of a core tell the same events
        return now, self._throttles.see(now) if now is not None else None

    def _renew_traits(self) -> None:
        """Another object only where something is another: who holds the old one compares by identity."""
        if (traits := self._traits()) != self.traits:
            self.traits = traits

    def _traits(self) -> Traits:
        rails, trips = self._power, self._control
        if not any(z.passive_c or z.critical_c for z in trips):  # a PC's zone has none; its sensor in hwmon has
            trips = hwmon_zones(self.sysfs)
        passive = min((z.passive_c for z in trips if z.passive_c), default=None)
        critical = min((z.critical_c for z in trips if z.critical_c), default=None)
        throttle_c = passive or (critical - _MARGIN_C if critical else _THROTTLE_C)
        full_w = self._rated_w() or FULL_W
        shrink = FULL_W / full_w
        base = Traits(
            kind=self.kind,
            name=self._name(),
            throttle_c=throttle_c,
            critical_c=max(critical or _CRITICAL_C, throttle_c),
            has_power=rails is not None,
            clocks=self._cap.shares,
            power_from=rails.words if rails else "",
        )
        if shrink == 1:
            return base
        # A bigger board has the bigger heat sink: as hot under its full load as a small one.
        k = base.die_k_per_w * shrink, base.sink_k_per_w * shrink
        return replace(base, idle_w=full_w / 4, full_w=full_w, die_k_per_w=k[0], sink_k_per_w=k[1])

    def _name(self) -> str:
        return model(self.sysfs) or _processor(outside(self.sysfs)) or f"generic {os.uname().machine}"

    def _rated_w(self) -> float | None:
        """What a PC's processor is made to bear for long, where powercap tells."""
        uw = quantity(self.sysfs / "class/powercap/intel-rapl:0/constraint_0_power_limit_uw")
        return uw / 1e6 if uw and 1e6 <= uw <= 1e9 else None


def _processor(root: Path) -> str:
    """A PC has no device tree: its processor's name."""
    lines = (line.partition(":") for line in peek(root / "proc/cpuinfo").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")
