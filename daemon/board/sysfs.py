"""Reads the kernel's small files, and finds sensors in them by name: zone, hwmon and bus numbers move between boots.

A file that is absent, refuses, is empty or holds anything but a plain number in range is None, and why is kept. Units are
those of the kernel (Documentation/hwmon/sysfs-interface.rst, Documentation/driver-api/thermal/sysfs-api.rst):
temperatures in millidegrees, mV, mA, microwatts, kHz for CPUs, Hz for devfreq.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,9})?")
_NAME = re.compile(r"[\w.()+ -]{1,40}", re.ASCII)
_SUFFIX = re.compile(r"[-_](thermal|therm|thm)$")
_HOTTEST_C, _COLDEST_C = 150.0, -60.0
_MOST = 4096


class Look:
    """One look at a board's files: what did not answer, and why, is collected on the way. Raises nothing."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.gone: set[Path] = set()
        """Files that were there when sensors were looked for and are not there any more."""

    def text(self, path: Path, about: str) -> str | None:
        """What stands in the file, without blanks and NULs around it; None where it says nothing."""
        try:
            found = read(path)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
                self.gone.add(path)
            why = "powered off" if e.errno == errno.EAGAIN else os.strerror(e.errno) if e.errno else str(e)
            self.problems[about] = f"{path}: {why}"
            return None
        if not found:
            self.problems[about] = f"{path}: empty"
        return found or None

    def number(self, path: Path, about: str, unit: str, low: float = 0.0, high: float = 1e12) -> float | None:
        """A plain number from `low` to `high`; `unit` is what the kernel promises, for the words."""
        found = self.text(path, about)
        if found is None:
            return None
        if not _NUMBER.fullmatch(found):
            self.problems[about] = f"{path}: expected a number in {unit}, found {found[:40]!r}"
            return None
        value = float(found)
        if not low <= value <= high:
            self.problems[about] = f"{path}: expected {low:g} to {high:g} {unit}, found {found}"
            return None
        return value

    def celsius(self, path: Path, about: str) -> float | None:
        """Of a file in millidegrees. A chip at work is not within a degree of 0 C: that is a dead sensor or another unit."""
        milli = self.number(path, about, "millidegrees", _COLDEST_C * 1e3, _HOTTEST_C * 1e3)
        if milli is not None and abs(milli) < 1000:
            self.problems[about] = f"{path}: found {milli:g}, which is no temperature of a running chip in millidegrees"
            return None
        return None if milli is None else milli / 1e3


@dataclass(frozen=True)
class Zone:
    """A thermal zone or an hwmon input that stands for one."""

    name: str
    temp: Path
    passive_c: float | None = None
    """The lowest trip point at which the kernel slows the board down."""
    critical_c: float | None = None


def read(path: Path) -> str:
    """The file's text, stripped; OSError as it comes. A text that is not UTF-8 keeps what can be read of it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MOST).decode("utf-8", "replace").strip("\0 \t\r\n")
    finally:
        os.close(fd)


def peek(path: Path) -> str:
    """The file's text, empty where it cannot be read: for discovery, where absent is the usual case."""
    try:
        return read(path)
    except OSError:
        return ""


def name_in(path: Path) -> str:
    """The name in a file of the kernel's, empty where it is none that a driver would give."""
    found = peek(path)
    return found if _NAME.fullmatch(found) else ""


def quantity(path: Path) -> float | None:
    """The file's number, None where it has none: for discovery."""
    found = peek(path)
    return float(found) if _NUMBER.fullmatch(found) else None


def chips(sysfs: Path, *names: str) -> list[Path]:
    """The hwmon folders of the drivers so named; a name that ends in * stands for all that begin so."""
    wanted = {n for n in names if not n.endswith("*")}, tuple(n[:-1] for n in names if n.endswith("*"))
    found = [(peek(c / "name"), c) for c in _numbered(sysfs / "class/hwmon", "hwmon*")]
    return [c for name, c in found if name in wanted[0] or (wanted[1] and name.startswith(wanted[1]))]


def zones(sysfs: Path) -> list[Zone]:
    """Every thermal zone, by the name that its type gives it: CPU-therm, cpu-thermal and cpu_thermal are all `cpu`."""
    found: dict[str, Zone] = {}
    for folder in _numbered(sysfs / "class/thermal", "thermal_zone*"):
        if kind := name_in(folder / "type"):
            name = _free(_SUFFIX.sub("", kind.lower()), found)
            trips = _trips(folder)
            # Some drivers switch a trip off by a temperature far below or above anything that happens.
            passive = [t for k, t in trips if k == "passive" and 35 <= t <= _HOTTEST_C]
            critical = [t for k, t in trips if k == "critical" and 35 <= t <= _HOTTEST_C]
            found[name] = Zone(name, folder / "temp", min(passive, default=None), min(critical, default=None))
    return list(found.values())


def hwmon_zones(sysfs: Path) -> list[Zone]:
    """The processor's own sensor on machines whose kernel has no thermal zone for it (coretemp, k10temp, ...)."""
    found: dict[str, Zone] = {}
    for chip in chips(sysfs, "coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal"):
        for temp in sorted(chip.glob("temp*_input")):
            number = temp.name[len("temp") : -len("_input")]
            name = _free((name_in(chip / f"temp{number}_label") or name_in(chip / "name")).lower(), found)
            crit, most = quantity(chip / f"temp{number}_crit"), quantity(chip / f"temp{number}_max")
            top = crit / 1e3 if crit and 35e3 <= crit <= 150e3 else None
            # Intel's TjMax stands in crit: there the processor slows itself down, a little below it begins to matter.
            slow = most / 1e3 if most and top and 35e3 <= most < crit else top - 5 if top else None  # type: ignore[operator]
            found[name] = Zone(name, temp, slow, top)
    return list(found.values())


def coolers(sysfs: Path) -> list[tuple[str, Path]]:
    """(type, folder) of every cooling device of the thermal framework."""
    folders = _numbered(sysfs / "class/thermal", "cooling_device*")
    return [(kind, folder) for folder in folders if (kind := name_in(folder / "type").lower())]


def model(sysfs: Path) -> str:
    """What the device tree calls this board, empty where there is none."""
    return peek(sysfs / "firmware/devicetree/base/model")


def compatible(sysfs: Path) -> list[str]:
    """The device tree's names of this board, the most exact first."""
    return [c for c in peek(sysfs / "firmware/devicetree/base/compatible").split("\0") if c]


def outside(sysfs: Path) -> Path:
    """The folder in which /dev, /etc, /proc, /usr and /var of this board lie: beside DIR/sys, else inside the folder itself."""
    return sysfs.parent if sysfs.name == "sys" else sysfs


def _trips(folder: Path) -> list[tuple[str, float]]:
    found = []
    for kind in folder.glob("trip_point_*_type"):
        if (milli := quantity(kind.with_name(kind.name.replace("_type", "_temp")))) is not None:
            found.append((peek(kind), milli / 1e3))
    return found


def _numbered(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda p: (len(p.name), p.name))


def _free(name: str, taken: dict[str, Zone]) -> str:
    count = sum(t == name or t.startswith(f"{name}.") for t in taken)
    return f"{name}.{count + 1}" if count else name
