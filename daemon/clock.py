"""Gateway time: seconds that never go back and do not jump when the wall clock is set.

A gateway often boots with a wrong clock and is put right minutes later; a deadline must not pass because of that. Within
one boot gateway time follows CLOCK_BOOTTIME (clock_gettime(2): monotonic, suspend included), also over a restart of the
daemon. Over a reboot, when only the wall clock knows how long the power was off, it goes on by what that says if it says
more than nothing. Where it has no past it begins at the wall clock, so that both look alike.
"""

from __future__ import annotations

import ctypes
import functools
import time
from dataclasses import dataclass
from pathlib import Path

_TIME_ERROR = 5
_TIMEX_BYTES = 256
"""More than sizeof(struct timex) (208 on 64-bit Linux): adjtimex(2) with modes 0 only reads."""


@dataclass(frozen=True)
class Mark:
    """One moment in all three times; the last one is kept with the accepted jobs."""

    now: float
    wall: float
    boottime: float
    boot_id: str


class Clock:
    """Goes on from `last`, the mark that an earlier daemon left, or begins anew."""

    def __init__(self, last: Mark | None = None):
        self._boot_id = boot_id()
        boottime, wall = _boottime(), time.time()
        if last is None:
            self._offset = wall - boottime
        elif last.boot_id == self._boot_id:
            self._offset = last.now - last.boottime
        else:
            self._offset = last.now + max(0.0, wall - last.wall) - boottime

    def now(self) -> float:
        """Gateway time in seconds: deadlines, ages and waits are counted in it."""
        return _boottime() + self._offset

    def wall(self) -> float:
        """Seconds since 1970 as the machine believes: for time stamps that people read."""
        return time.time()

    def mark(self) -> Mark:
        """This moment."""
        return Mark(self.now(), time.time(), _boottime(), self._boot_id)


def synchronised() -> bool | None:
    """Whether the kernel says that something disciplines the wall clock (NTP, PTP, GPS); None where it does not say."""
    try:
        state = _c_library().adjtimex((ctypes.c_char * _TIMEX_BYTES)())
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Another one after each boot of the machine; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
