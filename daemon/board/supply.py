"""A supply that gives way when load begins: the board goes off, and on the next boot nobody knows why.

So the beginning of load is written down, and taken back when the load has stood for a while or ends. A mark that another
boot has left is a board that went off in that moment. A plug that is pulled at any other time leaves none.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from .sysfs import outside, peek

_STANDS_AFTER = 30.0
"""Seconds under load after which its beginning is not what switches the board off."""
_PERIOD = 60.0
"""Shortest time between two marks, to spare the flash; a load in between begins unmarked."""
_CAP, _LEAST = 0.8, 0.5


def boot_id(sysfs: Path) -> str:
    """The kernel's name for this boot (random(4)), empty where it does not tell."""
    return peek(outside(sysfs) / "proc/sys/kernel/random/boot_id")


class LoadMark:
    """`path`: a file that outlives a power cut. Used by one thread; times are monotonic seconds."""

    def __init__(self, path: Path, boot: str):
        self._path, self._boot = path, boot
        self._began: float | None = None
        self._written = float("-inf")
        boot_before, marked, self.deaths = _read(path)
        """Times in a row that the board went off as load began."""
        # The same boot: the daemon alone was killed, the supply stood.
        if marked and boot and boot_before and boot_before != boot:
            self.deaths += 1
        if marked:
            self._write(marked=False)

    @property
    def cap(self) -> float:
        """Share of the load that may be begun with, less after each time that the board went off."""
        return float(max(_LEAST, _CAP**self.deaths))

    def problem(self) -> str | None:
        """For people; None where there is none."""
        if not self.deaths:
            return None
        times = "" if self.deaths == 1 else f" {self.deaths} times in a row"
        return (
            f"the board went off{times} just as work began: the power supply or its cable gives way; "
            f"work begins with {self.cap:.0%} of its load now"
        )

    def begin(self, now: float) -> None:
        """Load begins after a rest."""
        if self._began is None and now - self._written >= _PERIOD:
            self._began, self._written = now, now
            self._write(marked=True)

    def stand(self, now: float) -> None:
        """Once a second under load: one that stands for long has a supply that bears it."""
        if self._began is not None and now - self._began >= _STANDS_AFTER:
            self._began, self.deaths = None, 0
            self._write(marked=False)

    def end(self) -> None:
        """Load ends, or the daemon does."""
        if self._began is not None:
            self._began = None
            self._write(marked=False)

    def _write(self, marked: bool) -> None:
        """Durable at once, or nothing: a disk that fails must not hold work up."""
        with contextlib.suppress(OSError):
            part = self._path.with_suffix(".part")
            with part.open("w") as f:
                json.dump({"boot": self._boot, "load_begins": marked, "deaths": self.deaths}, f)
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, self._path)


def _read(path: Path) -> tuple[str, bool, int]:
    try:
        found = json.loads(path.read_bytes())
        return str(found["boot"]), found["load_begins"] is True, max(0, int(found["deaths"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return "", False, 0
