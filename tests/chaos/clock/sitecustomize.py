"""Read by every Python process of the daemon under test: shifts its wall clock by what stands in a file, at once.

The monotonic clock and the kernel's own stamps (file times, timers) stay true, as when a time server sets the clock.
"""

import mmap
import os
import struct
import time

_file = os.open(os.environ["CHAOS_CLOCK"], os.O_RDONLY)
_shift = mmap.mmap(_file, 8, prot=mmap.PROT_READ)
_time, _time_ns, _clock_gettime = time.time, time.time_ns, time.clock_gettime


def _seconds() -> float:
    shift: float = struct.unpack_from("d", _shift)[0]
    return shift


def _shifted_clock(clock: int) -> float:
    return _clock_gettime(clock) + (_seconds() if clock == time.CLOCK_REALTIME else 0.0)


time.time = lambda: _time() + _seconds()
time.time_ns = lambda: _time_ns() + int(_seconds() * 1e9)
time.clock_gettime = _shifted_clock
