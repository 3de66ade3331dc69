"""Where a board's watts are read: power rails, energy counters, the Pi 5's power chip. One source per board, found by name.

INA3221 and INA2xx in hwmon (Linux Documentation/hwmon/ina3221.rst and ina2xx.rst), inN in mV, currN in mA, powerN in
microwatts. powercap (Documentation/power/powercap/powercap.rst): energy_uj in microjoules wraps, and usually only root may
read it. The Pi 5's PMIC answers `vcgencmd pmic_read_adc` alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .sysfs import Look, chips, name_in, peek, quantity
from .vcgencmd import Vcgencmd

TOTAL_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that carry the whole module; where a board has none of them the others are added up."""
_FED_BY = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
"""AGX Orin: rail -> the one before it, in which it is counted already."""
_SHUNT_SUM = "7"
_MOST_W = 1000.0
_PMIC = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Watts:
    """total: None where one of the rails that make it up did not answer."""

    total: float | None
    rails: Mapping[str, float | None]


class Source(Protocol):
    """What a board draws at a moment."""

    words: str
    """What is read, for people."""

    def read(self, look: Look, now: float) -> Watts:
        """Raises nothing: what does not answer is None and stands in `look.problems`. now: monotonic seconds."""


@dataclass(frozen=True)
class Rail:
    """volts times amperes (mV, mA), or a power file (microwatts)."""

    name: str
    volts: Path | None = None
    amperes: Path | None = None
    power: Path | None = None
    limit: Path | None = None
    """Amperes at which the board protects itself, in mA."""

    def read(self, look: Look) -> float | None:
        """Watts."""
        about = f"rail {self.name}"
        if self.power:
            uw = look.number(self.power, about, "microwatts", 0, _MOST_W * 1e6)
            return None if uw is None else uw / 1e6
        assert self.volts and self.amperes
        mv, ma = look.number(self.volts, about, "mV", 0, 1e5), look.number(self.amperes, about, "mA", -1e3, 1e5)
        # A current that is a little below nothing is the offset of an idle rail's amplifier.
        return None if mv is None or ma is None else mv * max(ma, 0.0) / 1e6


class Rails:
    """All connected rails of the board; the total is the rail that carries everything, or their sum."""

    def __init__(self, rails: list[Rail]):
        whole = next((n for n in TOTAL_RAILS for r in rails if r.name == n), None)
        self._rails = rails
        names = {r.name for r in rails}
        self._total = [whole] if whole else sorted(n for n in names if _FED_BY.get(n) not in names)
        self.words = f"power rails {', '.join(self._total)}"

    def read(self, look: Look, now: float) -> Watts:
        """See `Source`."""
        rails = {r.name: r.read(look) for r in self._rails}
        parts = [rails[n] for n in self._total]
        return Watts(None if None in parts else sum(p for p in parts if p is not None), rails)

    def limit_w(self) -> float | None:
        """Watts at which the protection of the rail that carries everything acts, at its nominal voltage: in whole volts."""
        for rail in self._rails:
            if rail.name in TOTAL_RAILS and rail.limit and rail.volts:
                ma, mv = quantity(rail.limit), quantity(rail.volts)
                watts = ma / 1e3 * round(mv / 1e3) if ma and mv else 0.0
                return watts if 0 < watts < _MOST_W else None
        return None


class Counters:
    """Mean power since the last reading, by counters of energy."""

    def __init__(self, counters: dict[str, Path]):
        self.words = f"energy counters {', '.join(counters)}"
        self._counters = counters
        self._last: dict[str, tuple[float, float]] = {}

    def read(self, look: Look, now: float) -> Watts:
        """See `Source`; the first reading only begins."""
        rails = {name: self._read(look, name, folder, now) for name, folder in self._counters.items()}
        return Watts(None if None in rails.values() else sum(w for w in rails.values() if w is not None), rails)

    def _read(self, look: Look, name: str, folder: Path, now: float) -> float | None:
        uj = look.number(folder / "energy_uj", f"counter {name}", "microjoules", 0, 1e18)
        began, before = self._last.pop(name, (now, 0.0))
        if uj is None:
            return None
        self._last[name] = now, uj
        if now <= began:
            return None
        joules = (uj - before) / 1e6
        if joules < 0:
            wraps_at = look.number(folder / "max_energy_range_uj", f"counter {name}", "microjoules", 1, 1e18)
            if wraps_at is None:
                return None
            joules += wraps_at / 1e6
        watts = joules / (now - began)
        return watts if 0 <= watts <= _MOST_W else None


class Pmic:
    """The Pi 5's power chip: every rail that it tells both current and voltage of. It does not see what USB and 5 V feed."""

    def __init__(self, firmware: Vcgencmd):
        self._firmware = firmware
        self.words = "PMIC rails by vcgencmd pmic_read_adc (the board without USB and 5 V consumers)"

    def read(self, look: Look, now: float) -> Watts:
        """See `Source`."""
        answer = self._firmware.ask("pmic_read_adc", look, "PMIC", now)
        rails = pmic_rails(answer or "")
        if answer and not rails:
            look.problems["PMIC"] = f"{self._firmware.path} pmic_read_adc: no rail with current and voltage in its answer"
        return Watts(sum(rails.values()) if rails else None, rails)


def find_rails(sysfs: Path) -> Rails | None:
    """Every connected channel of the board's INA monitors. One that does not answer now counts: a sum without it would lie."""
    found: dict[str, Rail] = {}
    for chip in chips(sysfs, "ina3221"):
        for label in sorted(chip.glob("in*_label")):
            number, name = label.name[2:-6], name_in(label)
            if not name or name.startswith("NC") or number == _SHUNT_SUM:
                continue
            limit = chip / f"curr{number}_crit"
            volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
            if os.path.lexists(volts) and os.path.lexists(amperes):
                found[name] = Rail(name, volts, amperes, limit=limit)
    for chip in chips(sysfs, "ina2*"):
        name = name_in(chip / "label") or name_in(chip / "power1_label") or f"{peek(chip / 'name')}.{len(found)}"
        if os.path.lexists(chip / "power1_input"):
            found[name] = Rail(name, power=chip / "power1_input")
    return Rails(list(found.values())) if found else None


def find_counters(sysfs: Path) -> Counters | None:
    """psys, which is the whole machine, or every package."""
    zones = {peek(p / "name"): p for p in sorted(sysfs.glob("class/powercap/intel-rapl:*")) if p.name.count(":") == 1}
    there = {name: p for name, p in zones.items() if name and quantity(p / "energy_uj") is not None}
    chosen = {"psys": there["psys"]} if "psys" in there else {n: p for n, p in there.items() if n.startswith("package")}
    return Counters(chosen) if chosen else None


def find_pmic(firmware: Vcgencmd, now: float) -> Pmic | None:
    """Where this firmware answers for one."""
    pmic = Pmic(firmware)
    return pmic if pmic.read(Look(), now).total is not None else None


def pmic_rails(answer: str) -> dict[str, float]:
    """Watts of each rail that both its current (`  VDD_CORE_A current(7)=2.43A`) and its voltage are told of."""
    volts: dict[str, float] = {}
    amperes: dict[str, float] = {}
    for name, which, value in _PMIC.findall(answer):
        try:
            (amperes if which == "A" else volts)[name] = float(value)
        except ValueError:
            continue
    return {name: amperes[name] * volts[name] for name in amperes if name in volts}
