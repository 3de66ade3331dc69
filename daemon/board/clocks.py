"""The clocks that a board may be asked to stay below: cpufreq policies (kHz) and a GPU's devfreq (Hz).

A cap is the user's own limit, scaling_max_freq and max_freq (Linux Documentation/admin-guide/pm/cpufreq.rst and
Documentation/ABI/testing/sysfs-class-devfreq): the kernel takes the lowest of all limits, so its governors and its thermal
throttling stay what they are. What stood there before is put back at exit, and after a crash at the next start.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from .sysfs import Look, peek, quantity

_STEPS = 8


@dataclass(frozen=True)
class Clock:
    """One clock that moves by itself."""

    name: str
    now: Path
    limit: Path
    """What may be written."""
    lowest: float
    top: float
    unit: str


def cpu_clocks(sysfs: Path) -> list[Clock]:
    """Every cpufreq policy, the fastest cores first. Kernels before 4.3 and some boards show one for each core."""
    cpu = sysfs / "devices/system/cpu"
    folders = sorted(cpu.glob("cpufreq/policy[0-9]*")) or sorted(cpu.glob("cpu[0-9]*/cpufreq"))
    found = []
    for folder in folders:
        lowest, top = quantity(folder / "cpuinfo_min_freq"), quantity(folder / "cpuinfo_max_freq")
        if lowest and top and lowest <= top:
            name = folder.name if folder.name != "cpufreq" else folder.parent.name
            found.append(Clock(name, folder / "scaling_cur_freq", folder / "scaling_max_freq", lowest, top, "kHz"))
    return sorted(found, key=lambda c: -c.top)


def gpu_clock(folder: Path) -> Clock | None:
    """Of a devfreq folder."""
    steps = [float(f) for f in peek(folder / "available_frequencies").split() if f.isdigit()]
    lowest, top = min(steps, default=quantity(folder / "min_freq")), max(steps, default=quantity(folder / "max_freq"))
    if not lowest or not top or lowest > top:
        return None
    return Clock("gpu", folder / "cur_freq", folder / "max_freq", lowest, top, "Hz")


class Cap:
    """All clocks of a board held below one share of their tops. `keep`: a file that outlives a crash, to undo it."""

    def __init__(self, clocks: list[Clock], keep: Path | None = None):
        self._clocks, self._keep = clocks, keep
        self._before: dict[str, int] = {}
        self._ours: dict[str, tuple[float, float]] = {}
        """From what to what the kernel shows our limit: as low as when it was written, as high as we asked for."""
        self.throttled = False
        """The kernel holds clocks down now: what it shows then may lie below the limit that anybody asked for."""
        self._undo_crash()

    def watch(self, clocks: list[Clock]) -> None:
        """These are the board's clocks now; one that is capped stays known until it is given back."""
        if not self._before:
            self._clocks = clocks

    @property
    def shares(self) -> tuple[float, ...]:
        """The caps that may be set, ascending; (1.0,) where one of the clocks is not ours to set."""
        if not self._clocks or not all(os.access(c.limit, os.W_OK) for c in self._clocks):
            return (1.0,)
        low = max(0.25, *(c.lowest / c.top for c in self._clocks[:1]))
        return tuple(dict.fromkeys(round(low + (1 - low) * n / _STEPS, 3) for n in range(_STEPS + 1)))

    def why_not(self) -> str | None:
        """Why `shares` has nothing to offer, and what to do about it."""
        if not self._clocks:
            return "this board shows no clock that can be capped"
        shut = [str(c.limit) for c in self._clocks if not os.access(c.limit, os.W_OK)]
        return f"no right to write {', '.join(shut)}: see 'The clock cap' in docs/boards.md" if shut else None

    def set(self, share: float) -> str | None:
        """None: done. Else why not, and every clock as it was. 1 gives all of them back."""
        if not 0 < share <= 1:
            return f"expected a share of the top clock above 0 and up to 1, found {share:g}"
        if share == 1:
            return self.release()
        if why := self.why_not():
            return why
        for clock in self._clocks:
            if why := self._set_one(clock, share):
                self.release()
                return why
        return None

    def release(self) -> str | None:
        """Every clock as it was before the first cap; None, or what could not be put back."""
        failed = []
        for path, value in self._before.items():
            limit = Path(path)
            # Who has set another limit meanwhile (a power mode, a person) knows better than our memory.
            if (found := quantity(limit)) is None or self._is_ours(path, found):
                try:
                    limit.write_text(f"{value}\n")
                except OSError as e:
                    failed.append(f"{path}: {e.strerror}")
        self._before.clear()
        self._ours.clear()
        atexit.unregister(self.release)
        if self._keep:
            with contextlib.suppress(OSError):
                self._keep.unlink()
        return "; ".join(failed) or None

    def _is_ours(self, path: str, found: float) -> bool:
        """Whether the limit in the file is the one that we wrote; it comes and goes with what the kernel throttles."""
        low, high = self._ours.get(path, (math.inf, -math.inf))
        return low <= found <= high or (self.throttled and found < low < math.inf)

    def _set_one(self, clock: Clock, share: float) -> str | None:
        path, found = str(clock.limit), quantity(clock.limit)
        if found is None:
            return f"{path}: no answer"
        if path not in self._before or not self._is_ours(path, found):  # another's newer limit
            self._before[path] = int(clock.top if self.throttled else found)
            self._remember()
        want = max(int(clock.lowest), min(int(share * clock.top), self._before[path]))
        try:
            clock.limit.write_text(f"{want}\n")
        except OSError as e:
            return f"{path}: {e.strerror}"
        taken = quantity(clock.limit)
        self._ours[path] = (want, want) if taken is None else (min(want, taken), max(want, taken))
        # The kernel shows the lowest of all limits: less than we asked for is its business, more means that we were not heard.
        if taken is None or taken > want * 1.001 + 1:
            return f"{path}: asked for {want} {clock.unit}, the kernel holds {taken:g}" if taken else f"{path}: no answer"
        return None

    def _remember(self) -> None:
        atexit.unregister(self.release)
        atexit.register(self.release)
        if self._keep:
            with contextlib.suppress(OSError):
                self._keep.write_text(json.dumps(self._before))

    def _undo_crash(self) -> None:
        """A daemon that was killed has left its cap behind."""
        if not self._keep:
            return
        known = {str(c.limit) for c in self._clocks}
        try:
            left = json.loads(self._keep.read_text())
            for path, value in left.items():
                if path in known and isinstance(value, int):
                    Path(path).write_text(f"{value}\n")
        except (OSError, ValueError, AttributeError):
            return
        with contextlib.suppress(OSError):
            self._keep.unlink()


def speed(look: Look, clock: Clock) -> float | None:
    """What this clock does now, as a share of its top."""
    now = look.number(clock.now, f"clock {clock.name}", clock.unit, 0, 1e11)
    return None if now is None else min(1.0, now / clock.top)
