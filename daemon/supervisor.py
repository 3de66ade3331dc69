"""Wires the daemon together: one thread, one selector; bus, spool, desk, sensor groups and two child processes.

It never computes: no numpy, cv2 or onnxruntime is imported here, so that their crash or hunger is a child's death.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec

from .. import __version__
from ..config.error import ConfigError
from ..config.tree import Config
from ..plugins.kind import JobKind
from . import wire
from .artifacts import sweep
from .bus import Bus, BusEvent, Connected, Delivered, Disconnected, Message, Subscription
from .core import dispatch
from .core.job import job_of
from .core.reply import stamp
from .desk import Desk
from .groups import Groups
from .link import Link
from .models import find_models, site_of
from .notify import notify, reloading, watchdog_period
from .spool import Spool

log = logging.getLogger(__name__)

_RELOADABLE = ("artifacts", "cameras", "inputs", "models", "queue", "sensors", "telemetry", "triggers")
_SWEEP_PERIOD = 60.0
_PARK_PATIENCE = 5.0
"""Seconds that a worker may take for the step it is in when it is asked to end."""
_REMEMBER_S = 7 * 86400.0
"""How long the spool remembers the result of an id."""


class Supervisor:
    """The daemon. `run` returns when it has been told to stop; `reread` reads the config again, for SIGHUP."""

    def __init__(self, config: Config, kinds: Mapping[str, JobKind], reread: Callable[[], Config]):
        self._config, self._kinds, self._reread = config, kinds, reread
        self._started = time.time()
        self._inbox: deque[BusEvent | _Reload] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._spool = Spool(Path(config.state_dir) / "spool.db")
        if self._spool.damage:
            log.error("%s", self._spool.damage)
        config.artifacts_dir.mkdir(parents=True, exist_ok=True)
        models, problems = find_models(config)
        for problem in problems:
            log.warning("model left out: %s", problem)
        offline = msgspec.json.encode({"state": "offline"})
        self._bus = Bus(config.mqtt, config.client_id, [], self._post, will=(f"{config.base}/status", offline))
        setup = {"config": msgspec.to_builtins(config)}
        self._worker = Link("denoised.daemon.worker", setup, _child_environment(config))
        self._cameras = Link("denoised.daemon.cameras", setup, _child_environment(config))
        self._desk = Desk(config, self._spool, self._bus, self._worker, self._cameras, self._kinds, site_of(config, models))
        self._groups = Groups(config, self._bus, self._desk, time.time())
        self._stop_signal: int | None = None
        self._note = ""
        self._last_reload: str | None = None

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        # paho's thread shall not wait the usual 5 ms for this one to let go of the interpreter.
        sys.setswitchinterval(0.0005)
        self._desk.recover()
        self._bus.subscribe(self._subscriptions())
        self._bus.start()
        selector = selectors.DefaultSelector()
        selector.register(self._wake_in, selectors.EVENT_READ)
        with self._signals():
            notify(f"READY=1\nSTATUS=waiting for the broker at {self._config.mqtt.host}:{self._config.mqtt.port}")
            log.info("ready: %d kinds, spool %s", len(self._kinds), Path(self._config.state_dir) / "spool.db")
            try:
                self._loop(selector)
            finally:
                self._goodbye()

    # ---- the loop -------------------------------------------------------------------------------------------------

    def _loop(self, selector: selectors.BaseSelector) -> None:
        watched: dict[Link, tuple[wire.Wire, int]] = {}
        telemetry_at = sweep_at = time.monotonic()
        watchdog = watchdog_period()
        watchdog_at = time.monotonic()
        while self._stop_signal is None:
            now, tick = time.time(), time.monotonic()
            links = [self._worker, self._cameras] if self._config.cameras else [self._worker]
            for link in links:
                if link.restart_at is not None and tick >= link.restart_at:
                    link.start()
                    if link is self._cameras:
                        self._desk.ask_again_for_frames()
            if (due := self._groups.due) is not None and now >= due:
                self._groups.close(now)
            self._desk.store(now)
            self._desk.dispatch(now)
            self._desk.outbox.pump()
            if tick >= telemetry_at:
                telemetry_at = tick + self._config.telemetry.period
                self._bus.publish(f"{self._config.base}/telemetry", msgspec.json.encode(self._telemetry(now)), qos=0)
            if tick >= sweep_at:
                sweep_at = tick + _SWEEP_PERIOD
                self._sweep(now)
            if watchdog and tick >= watchdog_at:
                watchdog_at = tick + watchdog
                notify("WATCHDOG=1")
            _watch(selector, links, watched)
            waits = [telemetry_at - tick, sweep_at - tick, *([watchdog_at - tick] if watchdog else [])]
            waits += [1.0] if self._desk.stack else []
            waits += [link.restart_at - tick for link in links if link.restart_at is not None]
            waits += [at - now for at in (self._groups.due, dispatch.next_due(self._desk.entries.values())) if at is not None]
            selector.select(max(0.0, min(waits)))
            self._hear_bus()
            for link in links:
                self._hear_child(link)
            self._end_hung_worker()

    def _hear_bus(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        now, requests = time.time(), []
        while self._inbox:
            event = self._inbox.popleft()
            if isinstance(event, Message):
                if self._groups.measure(event, now):
                    self._bus.ack(event)
                else:
                    requests.append(event)
            elif isinstance(event, Delivered):
                self._desk.outbox.delivered(event)
            elif isinstance(event, Connected):
                self._connected(event)
            elif isinstance(event, Disconnected):
                self._say_status(f"no broker: {event.reason}")
            else:
                self._reload()
        if requests:
            self._desk.take(requests, now)

    def _hear_child(self, link: Link) -> None:
        if link.wire is None:
            return
        try:
            link.wire.flush()
            messages = link.receive()
        except wire.WireClosed:
            how = link.died(time.monotonic())
            if link is self._worker:
                self._desk.worker_died(how, time.time())
            return
        for message in messages:
            if link is self._worker:
                self._desk.from_worker(message, time.time())
                if message["type"] in ("done", "failed"):
                    link.proved_itself()
            else:
                self._desk.from_cameras(message, time.time())
                link.proved_itself()

    def _end_hung_worker(self) -> None:
        """A worker that has said nothing for far longer than a step takes is ended; its job goes on in the next one."""
        silent = time.monotonic() - self._worker.heard_at
        patience = max(self._config.engine.patience, 30 * self._desk.longest_step)
        if self._desk.stack and self._worker.ready and silent > patience:
            log.error("the worker has said nothing for %.0f s and is ended", silent)
            self._worker.kill()

    def _connected(self, event: Connected) -> None:
        self._bus.publish(f"{self._config.base}/status", msgspec.json.encode(self._birth()), retain=True)
        self._desk.outbox.wake()
        if event.refused:
            self._say_status(f"connected, but the broker does not allow us {', '.join(event.refused)}: check its ACL")
        else:
            self._say_status(f"connected to {self._config.mqtt.host}:{self._config.mqtt.port}")

    def _post(self, event: BusEvent) -> None:
        """Called in paho's thread."""
        self._inbox.append(event)
        with contextlib.suppress(BlockingIOError):  # enough wake-ups are under way already
            self._wake_out.send(b"!")

    # ---- words ----------------------------------------------------------------------------------------------------

    def _birth(self) -> dict[str, Any]:
        models = [
            {"name": b.manifest.name, "version": b.manifest.version, "kind": b.manifest.kind}
            for bundles in self._desk.site.models.values()
            for b in bundles
        ]
        return {
            "state": "online",
            "version": __version__,
            "started": stamp(self._started),
            "kinds": sorted(self._kinds),
            "models": models,
            "board": _board_name(),
        }

    def _telemetry(self, now: float) -> dict[str, Any]:
        desk = self._desk
        return {
            "time": stamp(now),
            "note": self._note,
            "reload": self._last_reload,
            "queue": {"jobs": len(desk.entries), "max_jobs": self._config.queue.max_jobs},
            "outbox": {"waiting": self._spool.outbox_size(), "too_large": desk.outbox.too_large},
            "running": [{"id": e.job.id, "kind": e.job.kind, "state": e.state} for e in desk.stack],
            "jobs": dict(desk.counts),
            "sensors": self._groups.counts(),
            "worker": {"ready": self._worker.ready, "backend": self._config.engine.backend, **self._worker.facts},
            "memory_mb": {"supervisor": _rss_mb(os.getpid()), "worker": _rss_mb(self._worker.pid)},
            "temps_c": _temperatures(Path(self._config.board.sysfs_root)),
        }

    def _say_status(self, note: str) -> None:
        if note != self._note:
            self._note = note
            log.info("%s", note)
            notify(f"STATUS={note}")

    def _subscriptions(self) -> list[Subscription]:
        jobs = f"{self._config.base}/jobs/+"
        triggers = {t.topic for t in self._config.triggers.values()}
        return [
            *(Subscription(f) for f in (f"{jobs}/submit", f"{jobs}/cancel", *sorted(triggers))),
            *(Subscription(t, qos=0) for t in self._groups.topics),
        ]

    def _sweep(self, now: float) -> None:
        wanted = {job_of(Path(p).parent.name) for p in self._spool.undelivered_paths()}
        artifacts = self._config.artifacts
        sweep(
            self._config.artifacts_dir,
            artifacts.quota_mb << 20,
            artifacts.keep_days * 86400,
            now,
            lambda job_id: job_id in wanted or job_id in self._desk.entries,
        )
        self._spool.forget(now - _REMEMBER_S)

    # ---- start, reload, stop --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Any:
        def stop(number: int, frame: Any) -> None:
            self._stop_signal = number

        previous = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda number, frame: self._inbox.append(_Reload()))
        fd = signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _reload(self) -> None:
        """Reads the config again. A bad one changes nothing and says why; keys that need a restart keep their value."""
        reloading()
        try:
            fresh = self._reread()
        except ConfigError as e:
            log.error("reload refused, nothing changed:\n%s", e)
            self._last_reload = f"reload refused: {str(e).splitlines()[0]}"
        else:
            held = [f.name for f in fields(Config) if getattr(fresh, f.name) != getattr(self._config, f.name)]
            held = [name for name in held if name not in _RELOADABLE]
            self._config = replace(self._config, **{name: getattr(fresh, name) for name in _RELOADABLE})
            self._apply()
            self._last_reload = "config reloaded" + (f"; needs a restart to change: {', '.join(held)}" if held else "")
        self._say_status(self._last_reload)
        notify("READY=1")

    def _apply(self) -> None:
        """Gives the changed config to everyone. The children start afresh; what the worker had in hand goes on from there."""
        setup = {"config": msgspec.to_builtins(self._config)}
        models, problems = find_models(self._config)
        for problem in problems:
            log.warning("model left out: %s", problem)
        self._desk.config, self._desk.site = self._config, site_of(self._config, models)
        self._park_worker()
        self._cameras.stop()
        for link in (self._worker, self._cameras):
            link.setup, link.restart_at = setup, 0.0
        self._desk.worker_restarted(time.time())
        self._groups = Groups(self._config, self._bus, self._desk, time.time())
        self._bus.subscribe(self._subscriptions())

    def _park_worker(self) -> None:
        """The worker ends at its next step, with what it has in hand written down."""
        for message in self._worker.park(_PARK_PATIENCE):
            self._desk.from_worker(message, time.time())

    def _goodbye(self) -> None:
        """Accepted jobs stay in the spool; the plant is told before the connection ends."""
        notify("STOPPING=1\nSTATUS=stopping")
        self._park_worker()
        self._cameras.stop()
        self._desk.outbox.pump()
        offline = msgspec.json.encode({"state": "offline"})
        mid = self._bus.publish(f"{self._config.base}/status", offline, retain=True)
        until = time.monotonic() + 2.0
        while mid is not None and time.monotonic() < until:
            if any(isinstance(e, Delivered) and e.mid == mid for e in tuple(self._inbox)):
                break
            time.sleep(0.005)
        self._bus.stop()
        self._spool.close()
        log.info("stopped")


class _Reload:
    """SIGHUP came."""


def _watch(selector: selectors.BaseSelector, links: list[Link], watched: dict[Link, tuple[wire.Wire, int]]) -> None:
    """Registers each child's wire as it is now: for reading always, for writing while something is unsent."""
    for link in list(watched):
        line, _ = watched[link]
        if link.wire is not line or link not in links:
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(line)
            del watched[link]
    for link in links:
        if link.wire is None:
            continue
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.wire.unsent else 0)
        if link not in watched:
            selector.register(link.wire, events)
        elif watched[link][1] != events:
            selector.modify(link.wire, events)
        watched[link] = (link.wire, events)


def _child_environment(config: Config) -> dict[str, str]:
    return {
        "PYTHONSAFEPATH": "1",  # nothing in the folder that we were started from is taken for a library
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",  # numpy's own threads would only get in the way of the network's
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(round(config.inputs.max_megapixels * 1e6)),
    }


def _board_name() -> str:
    try:
        return Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        return f"generic {platform.machine()}"


def _rss_mb(pid: int | None) -> float | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _temperatures(sysfs: Path) -> dict[str, float]:
    """Thermal zones by name; a zone that does not answer is left out."""
    out = {}
    for zone in sorted(sysfs.glob("class/thermal/thermal_zone*")):
        with contextlib.suppress(OSError, ValueError):
            out[(zone / "type").read_text().strip()] = int((zone / "temp").read_text()) / 1000
    return out
