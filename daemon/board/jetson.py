"""NVIDIA Jetson, JetPack 5 to 7: what the kernel does not tell by general names.

Zones, rails and trips: Jetson Linux Developer Guide, "Platform Power and Performance"; over-current counters: soctherm_oc in
hwmon; power modes: nvpmodel's own files, by name, as numbers differ between modules and releases. Nothing is set but clocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.reading import Reading, Traits
from .clocks import Clock, gpu_clock, speed
from .generic import Generic
from .power import Rails
from .sysfs import Look, Zone, chips, compatible, model, outside, peek

SOFT_C, CRITICAL_C = 99.0, 104.5
"""Software throttling and shutdown of the Orin family, for kernels that show no trip points."""
_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b")
_BUSY = 50.0
"""Of 1000: a GPU that does less has its clock low because nobody asks for more."""
_MODE = re.compile(r"<\s*POWER_MODEL\b([^>]*)>")


@dataclass(frozen=True)
class Module:
    """What a module draws, by power mode, and how its usual cooler carries it away (see Traits)."""

    idle_w: float
    full_w: dict[str, float]
    usual_w: float
    """Where the mode is not known."""
    die_k_per_w: float
    die_s: float
    sink_k_per_w: float
    sink_s: float


MODULES = {
    "orin nano": Module(4.0, {"7W": 7.0, "15W": 13.0, "25W": 20.0, "MAXN_SUPER": 23.5, "MAXN": 13.0}, 13.0, 0.7, 3, 2.0, 120),
    "orin nx": Module(
        4.6, {"10W": 9.0, "15W": 12.0, "25W": 16.9, "40W": 27.6, "MAXN_SUPER": 29.4, "MAXN": 25.0}, 16.9, 0.6, 3, 1.7, 150
    ),
    "agx orin": Module(8.0, {"15W": 15.0, "30W": 28.0, "50W": 45.0, "MAXN": 55.0}, 28.0, 0.35, 3, 0.8, 240),
}
_OTHER = Module(4.0, {}, 13.0, 0.7, 3, 2.0, 120)
_COMPATIBLE = {"p3767-0000": "orin nx", "p3767-0001": "orin nx", "p3767": "orin nano", "p3701": "agx orin"}
"""Part of the device tree's name -> module; the more exact first."""


class Jetson(Generic):
    """A module with its INA3221, soctherm and nvpmodel."""

    kind = "jetson"

    def __init__(self, sysfs: Path, keep: Path | None = None):
        self._sagged: int | None = None
        self._traits_mode: str | None = None
        self._limit_w: float | None = None
        super().__init__(sysfs, keep)

    def _find(self, now: float) -> None:
        root = outside(self.sysfs)
        self._status, self._modes = root / "var/lib/nvpmodel/status", power_modes(peek_all(root / "etc/nvpmodel.conf"))
        self._gpu = find_gpu(self.sysfs)
        self._over_current = next(iter(chips(self.sysfs, "soctherm_oc")), None)
        super()._find(now)

    def _control_zones(self) -> list[Zone]:
        # tj is the highest of all. It is off on some kernels, and taking it with the others costs nothing.
        return [z for z in self._zones if not z.name.startswith("cv")] or self._zones

    def _find_clocks(self) -> list[Clock]:
        gpu = gpu_clock(self._gpu) if self._gpu else None
        return [*super()._find_clocks(), *([gpu] if gpu else [])]

    def _reading(self, look: Look, now: float) -> Reading:
        reading = super()._reading(look, now)
        low, average, instant = (self._events(look, n) for n in (1, 2, 3))
        over = None if average is None and instant is None else (average or 0) + (instant or 0)
        mode = self._mode(look)
        if mode is not None and mode != self._traits_mode:
            self._renew_traits()
        return replace(
            reading,
            under_voltage=None if low is None else self._rose(low),
            under_voltage_events=low,
            over_current_events=over,
            mode=mode,
        )

    def _events(self, look: Look, number: int) -> int | None:
        """Since boot: 1 under-voltage, 2 average and 3 instantaneous over-current."""
        if not self._over_current:
            return None
        count = look.number(self._over_current / f"oc{number}_event_cnt", f"over-current {number}", "events", 0, 1e12)
        return None if count is None else int(count)

    def _rose(self, count: int) -> bool:
        """The supply sags now: it was counted since the last reading."""
        before, self._sagged = self._sagged, count
        return before is not None and count > before

    def _speed(self, look: Look) -> float | None:
        """Of the GPU while it works, else of the CPU."""
        gpu = next((c for c in self._clocks if c.name == "gpu"), None)
        if gpu and self._gpu and (load := self._gpu / "device/load").exists():
            busy = look.number(load, "gpu load", "tenths of a percent", 0, 1000)
            if busy is not None and busy >= _BUSY:
                return speed(look, gpu)
        return super()._speed(look)

    def _mode(self, look: Look) -> str | None:
        """nvpmodel's mode by name; None where this image has no nvpmodel."""
        if not self._modes:
            return None
        status = look.text(self._status, "power mode")
        found = re.search(r"pmode:(\d+)", status or "")
        if not found:
            if status:
                look.problems["power mode"] = f"{self._status}: expected pmode:NUMBER, found {status[:40]!r}"
            return None
        return self._modes.get(int(found[1]), f"mode {int(found[1])}")

    def _traits(self) -> Traits:
        self._traits_mode = self._mode(Look()) or self._traits_mode  # one that does not answer once is no other mode
        base, module = super()._traits(), module_of(self.sysfs)
        passive = min((z.passive_c for z in self._zones if z.passive_c), default=SOFT_C)
        critical = min((z.critical_c for z in self._zones if z.critical_c), default=CRITICAL_C)
        if self._limit_w is None and isinstance(self._power, Rails):  # once: traits that sway with the rail are new ones
            self._limit_w = self._power.limit_w()
        full_w = module.full_w.get(self._traits_mode or "", module.usual_w)
        return replace(
            base,
            throttle_c=passive,
            critical_c=max(critical, passive),
            idle_w=module.idle_w,
            full_w=min(full_w, self._limit_w or full_w),
            die_k_per_w=module.die_k_per_w,
            die_s=module.die_s,
            sink_k_per_w=module.sink_k_per_w,
            sink_s=module.sink_s,
            limit_w=self._limit_w,
        )

    def _rated_w(self) -> float | None:
        return None


def module_of(sysfs: Path) -> Module:
    """By the model's words, else by the device tree's part number."""
    name, parts = model(sysfs).lower(), " ".join(compatible(sysfs))
    by_name = next((m for words, m in MODULES.items() if words in name), None)
    return by_name or next((MODULES[m] for part, m in _COMPATIBLE.items() if part in parts), _OTHER)


def find_gpu(sysfs: Path) -> Path | None:
    """The devfreq folder of the GPU's core clock."""
    for folder in sorted(sysfs.glob("class/devfreq/*")):
        if _GPU.search(peek(folder / "device/of_node/name").lower() or folder.name.lower()):
            return folder
    return None


def power_modes(conf: str) -> dict[int, str]:
    """Number -> name, of nvpmodel.conf; the order of attributes in a header is not fixed."""
    found = {}
    for header in _MODE.findall(conf):
        number, name = re.search(r"\bID\s*=\s*(\d+)", header), re.search(r"\bNAME\s*=\s*(\S+)", header)
        if number and name:
            found[int(number[1])] = name[1]
    return found


def peek_all(path: Path) -> str:
    """The whole of a file of /etc, empty where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
