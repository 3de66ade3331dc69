"""Whether the power supply carries the load: a gateway that went off under load starts again with less, and says so.

While work runs a marker lies in the state folder. A clean stop and a long rest take it away; where a start finds one of
another boot, the machine went off under load. Each such start lowers the cap, a day without one lifts it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from .clock import boot_id
from .durable import read_json, sync, write_json

log = logging.getLogger(__name__)

_REST_S = 600.0
"""Load that pauses for less is one load: each marker is a write."""
_LESS = 0.8
"""Share of the power above rest that is left after each fault."""
_MOST_FAULTS = 4
_FORGIVEN_S = 86400.0


class Supply:
    """Used by one thread; `wall` is seconds since 1970, `tick` monotonic seconds.

    A day is counted by the monotonic clock while we run, and over restarts by the wall clock; not at all where that went back.
    """

    def __init__(self, folder: Path, wall: float, tick: float):
        self._path, self._faults_path = folder / "under-load.json", folder / "supply.json"
        found = read_json(self._faults_path)
        faults, at = found.get("faults", 0), found.get("at", 0.0)
        whole = isinstance(faults, int) and isinstance(at, (int, float)) and math.isfinite(at)
        past_s = max(0.0, wall - at) if whole else _FORGIVEN_S
        self.faults = min(max(faults, 0), _MOST_FAULTS) if past_s < _FORGIVEN_S else 0
        self._forgiven_at = tick + _FORGIVEN_S - past_s
        self._marked, self._busy_at = self._path.exists(), 0.0
        if self._marked and read_json(self._path).get("boot_id") not in (None, boot_id()):
            self.faults, self._forgiven_at = min(self.faults + 1, _MOST_FAULTS), tick + _FORGIVEN_S
            self._try(lambda: write_json(self._faults_path, {"faults": self.faults, "at": wall}))
            log.error("%s", self.problem())
            self.clear()

    @property
    def share(self) -> float:
        """Of the power above rest that may be asked of it."""
        return _LESS**self.faults

    def problem(self) -> str | None:
        """In words, for people; None where it carries the load."""
        if not self.faults:
            return None
        times = "time" if self.faults == 1 else "times"
        return (
            f"the gateway went off under load {self.faults} {times} (a power cut, or a supply that is too weak): "
            f"for a day it draws at most {self.share:.0%} of its full power above rest"
        )

    def look(self, busy: bool, tick: float) -> None:
        """Once in a second or so."""
        if self.faults and tick >= self._forgiven_at:
            self.faults = 0
            self._try(lambda: self._unlink(self._faults_path))
            log.info("the supply has carried the load for a day: full power again")
        if busy:
            self._busy_at = tick
            if not self._marked:
                self._marked = True
                self._try(lambda: write_json(self._path, {"boot_id": boot_id()}))
        elif self._marked and tick - self._busy_at >= _REST_S:
            self.clear()

    def clear(self) -> None:
        """A clean stop, or a long rest: what comes now is no fault of the supply under load."""
        if self._marked:
            self._marked = False
            self._try(lambda: self._unlink(self._path))

    def _unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        sync(path.parent)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as e:
            log.warning("%s: %s", self._path.parent, e.strerror)
