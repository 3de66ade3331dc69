"""Takes care of the worker: ends it where it hangs, renews it where it grew or its engine failed, unloads it where idle.

Its verdict is also what systemd's watchdog is fed by: the loop turns, and the worker answers or is busy within its time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from ..config.tree import Engine
from .core import health
from .desk import Desk
from .governor import GovernorLoop
from .link import Link, Nursery

log = logging.getLogger(__name__)

_PING_S = 5.0
_REPROBE_S = (2.0, 60.0)


class Care:
    """Used by one thread. `tick` is monotonic seconds; `renew(reason)` parks the worker and starts a new one."""

    def __init__(
        self,
        engine: Engine,
        worker: Link,
        nursery: Nursery,
        desk: Desk,
        renew: Callable[[str], None],
        governor: GovernorLoop,
    ):
        self._governor = governor
        self._engine, self._worker, self._nursery, self._desk, self._renew = engine, worker, nursery, desk, renew
        limit = engine.memory_limit_mb
        self._limit_mb = float(limit) if isinstance(limit, int) else _machine_mb() / 2
        self._used_at = 0.0
        self._pinged_at = 0.0
        self._probe_wait, self._probe_at = _REPROBE_S[0], 0.0
        self.opens: str | None = None
        """The model that a worker opens now, so that a slow start can be told from a hang."""
        self.hangs = False

    @property
    def unloaded(self) -> bool:
        """No worker is there, and none is to come before there is a job for it."""
        return self._worker.wire is None and self._worker.restart_at is None

    def state(self) -> str:
        """`none`, `loading`, `idle` or `busy`."""
        if self._worker.wire is None:
            return "none"
        if self._worker.ready and self._desk.stack:
            return "busy"
        return "idle" if self._worker.ready and self.opens is None else "loading"

    def came_up(self, tick: float) -> None:
        """The worker said `ready`: what it found is what is known of its models."""
        models = self._worker.facts.get("models", {})
        faults = {name: found["error"] for name, found in models.items() if "error" in found}
        self.opens, self._used_at = None, tick
        if models:  # else it was in a hurry, and probes them later
            self._desk.faults = faults
        if any(found.get("transient") for found in models.values()):
            self._probe_at, self._probe_wait = tick + self._probe_wait, min(2 * self._probe_wait, _REPROBE_S[1])
        else:
            self._probe_wait = _REPROBE_S[0]

    def look(self, tick: float, now: float) -> None:
        """Once in each turn of the loop; `now` is gateway time."""
        state = self.state()
        if state == "busy":
            self._used_at = tick
        elif self.unloaded and (self._desk.next(now) is not None or self._governor.wants_worker(now)):
            self._worker.restart_at = tick
        elif state == "idle":
            self._look_at_idle(tick)

    def _look_at_idle(self, tick: float) -> None:
        if tick - self._pinged_at >= _PING_S:
            self._pinged_at = tick
            heard = self._worker.heard_at
            self._worker.send({"type": "ping"})
            self._worker.heard_at = heard  # a question is no sign of life
        if any(found.get("transient") for found in self._worker.facts.get("models", {}).values()) and tick >= self._probe_at:
            self._renew("looks again for what was missing")
        elif self._engine.unload_after is not None and tick - self._used_at >= self._engine.unload_after:
            log.info("no job for %g s: the networks leave the memory", self._engine.unload_after)
            self._worker.stop()

    def check(self, tick: float) -> None:
        """Once in a second or so: does it hang, has it grown?"""
        worker = health.Worker(self.state(), tick - self._worker.heard_at, rss_mb(self._worker.pid))
        self.hangs = health.hangs(worker, self._engine.patience, self._desk.longest_step)
        # One that holds too much without having done anything would be as large again.
        verdict = health.too_big(worker, self._limit_mb) if self._worker.worked or worker.state != "idle" else None
        if self.hangs:
            log.error("the worker (%s) has said nothing for %.0f s and is ended", worker.state, worker.silent_s)
            if self._worker.pid is None:  # it was never born: the zygote hangs
                self._nursery.stop()
            self._worker.kill()
        elif verdict == "kill":
            log.error("the worker holds %.0f MB, more than half again of %.0f MB, and is ended", worker.rss_mb, self._limit_mb)
            for entry in self._desk.stack[-1:]:
                entry.outgrew += 1
            self._worker.kill()
        elif verdict == "renew":
            self._renew(f"holds {worker.rss_mb:.0f} MB, more than {self._limit_mb:.0f} MB")


def rss_mb(pid: int | None) -> float | None:
    """Memory that a process holds, in MB; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as f:
            pages = int(f.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _machine_mb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
