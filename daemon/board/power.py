"""What the board draws, as far as a calibration needs it: power rails or an energy counter where there is one, else a model.

Rails: INA3221 in hwmon (Linux Documentation/hwmon/ina3221.rst), inN in mV and currN in mA. Counter: powercap
(Documentation/power/powercap/powercap.rst), energy_uj in microjoules, which wraps and which usually only root may read.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Protocol

TOTAL_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that carry the whole module; where a board has none of them the others are added up."""
IDLE_W, CORE_W = 3.0, 1.5
"""The model: a guess at a small fanless board, watts at rest and per busy core. It ranks operating points, no more."""
_PERIOD = 0.1
_SHUNT_SUM = 7


class MeterError(OSError):
    """A sensor that was there has stopped answering."""


class Meter(Protocol):
    """Mean power between `start` and `stop`."""

    method: str
    """Where the figure comes from, in words."""
    measured: bool
    """False where it is a model."""

    def start(self) -> None:
        """Begins."""

    def stop(self) -> float:
        """Watts, mean since `start`; `MeterError` where the sensor did not answer."""


def find_meter(sysfs: Path) -> Meter:
    """The best that this board has."""
    rails, counters = _rails(sysfs), _counters(sysfs)
    return RailMeter(rails) if rails else CounterMeter(counters) if counters else ModelMeter()


class RailMeter:
    """Sums voltage times current of the rails, ten times a second."""

    measured = True

    def __init__(self, rails: dict[str, tuple[Path, Path]]):
        self.method = f"power rails {', '.join(rails)}"
        self._rails = rails
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: list[float | None] = []

    def start(self) -> None:
        """See `Meter`."""
        self._halt.clear()
        self._seen = [self._read()]
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """See `Meter`."""
        self._halt.set()
        if self._thread:
            self._thread.join()
        seen = [w for w in (*self._seen, self._read()) if w is not None]
        if not seen:
            raise MeterError(f"{self.method}: no answer")
        return sum(seen) / len(seen)

    def _sample(self) -> None:
        while not self._halt.wait(_PERIOD):
            self._seen.append(self._read())

    def _read(self) -> float | None:
        watts = 0.0
        for volts, amperes in self._rails.values():
            mv, ma = _number(volts), _number(amperes)
            if mv is None or ma is None:
                return None
            watts += mv * ma / 1e6
        return watts


class CounterMeter:
    """The difference of energy counters, over time."""

    measured = True

    def __init__(self, counters: dict[str, Path]):
        self.method = f"energy counters {', '.join(counters)}"
        self._counters = counters
        self._began: tuple[float, list[float | None]] = 0.0, []

    def start(self) -> None:
        """See `Meter`."""
        self._began = time.monotonic(), self._read()

    def stop(self) -> float:
        """See `Meter`."""
        began, before = self._began
        joules = 0.0
        for folder, a, b in zip(self._counters.values(), before, self._read()):
            wraps_at = _number(folder / "max_energy_range_uj")
            if a is None or b is None or (b < a and wraps_at is None):
                raise MeterError(f"{folder / 'energy_uj'}: no answer")
            joules += ((b - a) if b >= a else b - a + (wraps_at or 0)) / 1e6
        return joules / max(time.monotonic() - began, 1e-6)

    def _read(self) -> list[float | None]:
        return [_number(folder / "energy_uj") for folder in self._counters.values()]


class ModelMeter:
    """No sensor: this process's CPU time at a fixed price."""

    measured = False
    method = f"modelled: {IDLE_W:g} W and {CORE_W:g} W per busy core, as this board shows no power sensor that we may read"

    def __init__(self) -> None:
        self._began = 0.0, 0.0

    def start(self) -> None:
        """See `Meter`."""
        self._began = time.monotonic(), time.process_time()

    def stop(self) -> float:
        """See `Meter`."""
        wall, busy = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        return IDLE_W + CORE_W * min(busy / max(wall, 1e-6), os.cpu_count() or 1)


def _rails(sysfs: Path) -> dict[str, tuple[Path, Path]]:
    """Label -> files of voltage (mV) and current (mA): the one that carries everything, or all that are connected."""
    found: dict[str, tuple[Path, Path]] = {}
    for chip in sorted(sysfs.glob("class/hwmon/hwmon*")):
        if _text(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            number, name = label.name[2:-6], _text(label)
            files = chip / f"in{number}_input", chip / f"curr{number}_input"
            if name and not name.startswith("NC") and number != str(_SHUNT_SUM) and None not in map(_number, files):
                found[name] = files
    whole = [name for name in TOTAL_RAILS if name in found]
    return {whole[0]: found[whole[0]]} if whole else found


def _counters(sysfs: Path) -> dict[str, Path]:
    """Zone -> folder: psys, which is the whole machine, or every package."""
    zones = {_text(p / "name"): p for p in sorted(sysfs.glob("class/powercap/intel-rapl:*")) if p.name.count(":") == 1}
    there = {name: p for name, p in zones.items() if name and _number(p / "energy_uj") is not None}
    return {"psys": there["psys"]} if "psys" in there else {n: p for n, p in there.items() if n.startswith("package")}


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
