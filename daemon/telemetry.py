"""What the daemon says of itself: its birth (retained) and its telemetry. Reads what others hold; decides nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from typing import Any

from .. import __version__
from ..config.tree import Config
from ..plugins.kind import Site
from .care import Care, rss_mb
from .clock import synchronised
from .core.reply import clock_state, stamp
from .desk import Desk
from .disk import Disk
from .governor import GovernorLoop
from .link import Link, Nursery

INSTANCE = secrets.token_hex(4)
"""Tells this run of the daemon from any other of the same name."""
_DAY = 86400.0
_CRASH_LOOP = 3


class Telemetry:
    """Used by one thread. `tick` is monotonic seconds, `wall` seconds since 1970."""

    def __init__(
        self,
        desk: Desk,
        disk: Disk,
        care: Care,
        children: tuple[Link, Link],
        nursery: Nursery,
        governor: GovernorLoop,
        wall: float,
        tick: float,
    ):
        self._governor = governor
        self._desk, self._disk, self._care, self._nursery = desk, disk, care, nursery
        self._worker, self._cameras = children
        self.started, self._started_tick = stamp(wall), tick
        self._written: dict[int, int] = {}
        self._written_before = 0

    def birth(self, config: Config, kinds: Iterable[str], site: Site, problems: list[dict[str, str]]) -> dict[str, Any]:
        """The retained status of a daemon that is there."""
        models = [
            {"name": b.manifest.name, "version": b.manifest.version, "kind": b.manifest.kind}
            for bundles in site.models.values()
            for b in bundles
        ]
        return {
            "state": "online",
            "version": __version__,
            "started": self.started,
            "instance": INSTANCE,
            "kinds": sorted(kinds),
            "models": models,
            "board": self._governor.board,
            "problems": problems,
        }

    def problems(self, broker: list[str]) -> list[dict[str, str]]:
        """What a person should look at, with the code of the contract that jobs meet meanwhile, where they do."""
        found = [{"code": "engine", "about": name, "message": why} for name, why in sorted(self._desk.faults.items())]
        if self._worker.deaths >= _CRASH_LOOP:
            why = f"the worker died {self._worker.deaths} times in a row ({self._worker.last_death}); jobs wait for it"
            found.append({"code": "engine", "about": "worker", "message": why})
        if self._disk.full:
            found.append({"code": "storage", "about": "disk", "message": self._disk.full})
        return found + [{"code": "broker", "about": "mqtt", "message": why} for why in broker]

    def message(self, config: Config, wall: float, tick: float) -> dict[str, Any]:
        """Everything that can be measured, as numbers."""
        desk, worker = self._desk, self._worker
        return {
            "time": stamp(wall),
            "clock": clock_state(synchronised()),
            "uptime_s": round(tick - self._started_tick),
            "queue": {"jobs": len(desk.entries), "max_jobs": config.queue.max_jobs, "mean_run_ms": desk.mean_run_ms},
            "outbox": {
                "waiting": desk.outbox.waiting,
                "dropped": dict(desk.outbox.dropped),
                "undeliverable": dict(desk.outbox.undeliverable),
            },
            "running": [{"id": e.job.id, "kind": e.job.kind, "state": e.state} for e in desk.stack],
            "jobs": dict(desk.counts),
            "worker": {
                "state": "unloaded" if self._care.unloaded else self._care.state(),
                "ready": worker.ready,
                "opens": self._care.opens,
                "pid": worker.pid,
                "backend": config.engine.backend,
                **worker.facts,
            },
            "memory_mb": {
                "supervisor": rss_mb(os.getpid()),
                "worker": rss_mb(worker.pid),
                "zygote": rss_mb(self._nursery.pid),
            },
            "disk": {"free_mb": self._disk.free_mb(), "full": self._disk.full, **self._wear(tick)},
            "governor": self._governor.told(),
            "operating_point": self._governor.operating_point(),
            "energy": self._governor.ledger.told(wall),
            "zones_c": self._governor.zones_c(),
        }

    def _wear(self, tick: float) -> dict[str, float]:
        """What this daemon made the kernel write (proc(5), /proc/pid/io), so that an SD card's life can be reckoned."""
        writers = {os.getpid(), self._worker.pid, self._cameras.pid}
        for pid in writers:
            if pid is not None:
                with contextlib.suppress(OSError, ValueError, StopIteration), open(f"/proc/{pid}/io") as lines:
                    self._written[pid] = int(next(line for line in lines if line.startswith("write_bytes")).split()[1])
        for pid in [pid for pid in self._written if pid not in writers]:
            self._written_before += self._written.pop(pid)
        written = sum(self._written.values()) + self._written_before
        days = max(1.0, (tick - self._started_tick) / _DAY)
        return {
            "written_mb": round(written / 1e6, 2),
            "written_mb_per_day": round(written / 1e6 / days, 2),
            "checkpoint_mb": round(self._desk.checkpoint_bytes / 1e6, 2),
        }
