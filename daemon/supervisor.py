"""Wires the daemon together: one thread, one selector; bus, spool, reception, desk, sensor groups and the child processes.

It never computes: no numpy, cv2 or onnxruntime is imported here, so that their crash or hunger is a child's death.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec

from ..config.error import ConfigError
from ..config.refusal import Refusal
from ..config.tree import Config
from ..engines.bundle import Bundle
from ..plugins.kind import JobKind
from . import wire
from .artifacts import sweep
from .board.board import find_board
from .board.simulated import SimulatedBoard
from .boardwatch import process_load
from .builds import Builds
from .bus import Bus, Connected, Delivered, Disconnected, Message, Subscription
from .care import Care
from .core.job import Job
from .desk import Desk
from .disk import Disk
from .governor import GovernorLoop
from .groups import Groups, measured
from .link import Link, Nursery, Watched, watch
from .models import find_models, job_threads, site_of
from .notify import notify, reloading, watchdog_period
from .outbox import Outbox
from .presence import OFFLINE, Presence
from .reception import Reception
from .recorder import Recorder
from .sparkplug import Sparkplug
from .spool import Spool, SpoolError
from .telemetry import Telemetry

log = logging.getLogger(__name__)

_RELOADABLE = ("artifacts", "cameras", "inputs", "models", "policy", "queue", "sensors", "telemetry", "triggers")
_SWEEP_PERIOD = 60.0
_CHECK_PERIOD = 1.0
_RECORD_PERIOD = 10.0
_PARK_PATIENCE = 5.0
"""Seconds that a worker may take for the step it is in when it is asked to end."""
_REMEMBER_S = 7 * 86400.0
"""How long the spool remembers the result of an id, at least."""


class Supervisor:
    """The daemon. `run` returns when it has been told to stop; `reread` reads the config again, for SIGHUP."""

    def __init__(self, config: Config, kinds: Mapping[str, JobKind], reread: Callable[[], Config], recorder: Recorder):
        self._config, self._kinds, self._reread, self._recorder = config, kinds, reread, recorder
        self._reload_wanted = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._spool = Spool(Path(config.state_dir) / "spool.db")
        self._clock = self._spool.clock
        config.artifacts_dir.mkdir(parents=True, exist_ok=True)
        models, problems = find_models(config)
        for problem in problems:
            log.warning("model left out: %s", problem)
        self._bus = Bus(config.mqtt, config.client_id, [], will=(f"{config.base}/status", OFFLINE))
        setup = {"config": msgspec.to_builtins(config)}
        self._nursery = Nursery(config.engine.backend, ["denoised.daemon.worker"], _child_environment(config))
        self._worker = Link("denoised.daemon.worker", self._nursery, setup)
        self._cameras = Link("denoised.daemon.cameras", self._nursery, setup)
        self._disk = Disk([Path(config.state_dir), config.artifacts_dir], config.queue.min_free_mb)
        self._outbox = Outbox(self._spool, self._bus)
        self._desk = Desk(config, self._spool, self._outbox, self._worker, self._cameras, self._disk)
        self._builds = Builds(config, _child_environment(config), self._outbox, self._clock.wall)
        site, wall, tick = site_of(config, models), self._clock.wall(), time.monotonic()
        board = find_board(config.board, Path(config.run_dir) / "clocks.json")
        if isinstance(board, SimulatedBoard):
            board.load = process_load(lambda: self._worker.pid, job_threads(config))
        self._governor = GovernorLoop(config, self._desk, self._worker, board, self._bundle_of, self._note, wall, tick)
        self._desk.steward = self._governor
        self._reception = Reception(config, self._bus, self._desk, kinds, site, self._disk, self._builds, self._governor)
        self._care = Care(config.engine, self._worker, self._nursery, self._desk, self._renew_worker, self._governor)
        self._telemetry = Telemetry(
            self._desk,
            self._disk,
            self._care,
            (self._worker, self._cameras),
            self._nursery,
            self._governor,
            wall,
            tick,
        )
        self._presence = Presence(config.base, self._telemetry.started, self._bus, self._birth)
        self._sparkplug = [Sparkplug(config, kinds, self._clock.wall)] if config.sparkplug else []
        for node in self._sparkplug:
            self._desk.results.told, self._desk.frames.told = node.final, node.frame
        self._groups = self._new_groups()
        self._stop_signal: int | None = None
        self._last_reload: str | None = None

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        self._disk.look()
        if self._spool.damage:
            self._fault(self._spool.damage)
        self._desk.recover(self._clock.now())
        self._bus.subscribe(self._subscriptions())
        self._bus.start()
        for node in self._sparkplug:
            node.configure(self._config, self._birth([]))
            node.start()
        selector = selectors.DefaultSelector()
        selector.register(self._wake_in, selectors.EVENT_READ)
        gc.collect()
        gc.freeze()  # what is there now stays: a full collection would cost milliseconds of somebody's request
        with self._signals():
            notify(f"READY=1\nSTATUS=waiting for the broker at {self._config.mqtt.host}:{self._config.mqtt.port}")
            log.info("ready: %d kinds, spool %s", len(self._kinds), Path(self._config.state_dir) / "spool.db")
            try:
                self._loop(selector)
            except Exception as e:
                self._fault(f"the supervisor itself failed: {type(e).__name__}: {e}")
                raise
            finally:
                self._goodbye()

    # ---- the loop -------------------------------------------------------------------------------------------------

    def _loop(self, selector: selectors.BaseSelector) -> None:
        watched: dict[Watched, tuple[Any, int]] = {}
        periods = {
            self._say_telemetry: self._config.telemetry.period,
            self._check: _CHECK_PERIOD,
            self._record: _RECORD_PERIOD,
            self._sweep: _SWEEP_PERIOD,
        }
        due = dict.fromkeys(periods, time.monotonic())
        if (watchdog := watchdog_period()) is not None:
            periods[self._feed_watchdog], due[self._feed_watchdog] = watchdog, time.monotonic()
        while self._stop_signal is None:
            now, tick = self._clock.now(), time.monotonic()
            periods[self._say_telemetry] = self._config.telemetry.period
            self._care.look(tick, now)
            self._look_at_builds(now)
            children = self._start_children(tick)
            if (close := self._groups.due) is not None and self._clock.wall() >= close:
                self._groups.close(self._clock.wall(), now)
            self._desk.results.store(now)
            self._governor.turn(now, tick, self._clock.wall())
            self._desk.dispatch(now)
            self._outbox.pump(now)
            self._reception.acknowledge()
            for task, at in due.items():
                if tick >= at:
                    due[task] = tick + periods[task]
                    task()
            others: list[Watched] = [self._builds, self._governor.watch, *self._sparkplug]
            watch(selector, [self._bus, self._nursery, *others, *children], watched)
            selector.select(max(0.0, min(self._waits(now, tick, children, due.values()))))
            with contextlib.suppress(BlockingIOError):
                self._wake_in.recv(4096)
            if self._reload_wanted:
                self._reload()
            self._nursery.hear(time.monotonic())
            self._hear_bus()
            self._builds.hear()
            for link in children:
                self._hear_child(link)

    def _start_children(self, tick: float) -> list[Link]:
        """Starts what should live and does not; the cameras only where there are any."""
        children = [self._worker, self._cameras] if self._config.cameras else [self._worker]
        restartable: list[Nursery | Link] = [self._nursery, *children]
        for child in restartable:
            if child.restart_at is not None and tick >= child.restart_at:
                if child is self._worker:
                    self._worker.start(hurry=self._desk.next(self._clock.now()) is not None)
                    continue
                child.start()
                if child is self._cameras:
                    self._desk.frames.ask_again(self._desk.entries.values())
        return children

    def _look_at_builds(self, now: float) -> None:
        """A plan that is there is taken into use, then the next one is built, both only when there is nothing else to do."""
        idle = (self._care.unloaded or self._care.state() == "idle") and self._desk.next(now) is None
        if idle and self._builds.fresh:
            self._builds.fresh = False
            if not self._care.unloaded:
                self._renew_worker("a network was built for it")
                return
        self._builds.look(idle and not self._disk.full)

    def _waits(self, now: float, tick: float, children: list[Link], due: Any) -> list[float]:
        """Seconds until each thing that does not come as an event."""
        restarts = [self._bus.due, self._nursery.restart_at, *(child.restart_at for child in children)]
        restarts += [node.due for node in self._sparkplug]
        times = (self._outbox.due(now), self._desk.waiting.due(now))
        waits = [at - tick for at in (*due, *restarts, self._governor.due) if at is not None]
        waits += [at - now for at in times if at is not None]
        return waits if self._groups.due is None else [*waits, self._groups.due - self._clock.wall()]

    def _hear_bus(self) -> None:
        now, wall, requests = self._clock.now(), self._clock.wall(), []
        for event in self._bus.turn():
            if isinstance(event, Message):
                if event.topic == self._presence.topic:
                    self._presence.hear(event)
                self._hear_signal(event)
                # What is acknowledged goes through the reception, in the order of arrival (MQTT 5.0, section 4.6).
                if not self._groups.measure(event, wall) or event.qos or self._config.triggers:
                    requests.append(event)
            elif isinstance(event, Delivered):
                self._outbox.delivered(event, now)
            elif isinstance(event, Connected):
                self._presence.connected(event, f"{self._config.mqtt.host}:{self._config.mqtt.port}")
                self._outbox.wake()
            elif isinstance(event, Disconnected):
                if event.taken_over:
                    self._presence.namesake(event.reason)
                self._presence.say(f"no broker: {event.reason}")
        requests += [request for node in self._sparkplug for request in node.turn()]
        if requests:
            self._check_disk()
            self._reception.take(requests, now)

    def _hear_signal(self, message: Message) -> None:
        """The plant's price or battery signal, retained or not: it is a state."""
        signal = self._config.policy.signal
        if signal is not None and message.topic == signal.topic:
            self._governor.hear_signal(measured(message.payload, signal.field))

    def _bundle_of(self, job: Job) -> Bundle | None:
        try:
            return self._reception.site.model(job.kind, job.params.get("model"))
        except Refusal:
            return None

    def _note(self, facts: dict[str, Any]) -> None:
        """For the flight recorder."""
        self._recorder.note(self._clock.wall(), facts)

    def _hear_child(self, link: Link) -> None:
        if link.wire is None:
            return
        try:
            link.wire.flush()
            messages = link.receive()
        except wire.WireClosed:
            how = link.died(time.monotonic())
            if link is self._worker:
                self._fault(f"the worker died: {how}")
                self._desk.worker_died(how, self._clock.now())
            return
        for message in messages:
            if link is self._worker:
                self._from_worker(message)
            else:
                self._desk.from_cameras(message, self._clock.now())
                link.proved_itself()

    def _from_worker(self, message: Mapping[str, Any]) -> None:
        what = message["type"]
        if what in ("ready", "probed"):
            self._care.came_up(time.monotonic())
            if what == "ready":  # `probed` is the same worker, with its pace
                self._governor.worker_came_up()
            notify(f"STATUS={self._presence.note}")
        elif what == "loading":
            self._care.opens = message["model"]
            notify(f"STATUS={self._presence.note}; the worker opens {message['model']}")
        elif what == "build":
            self._builds.want(message)
        self._desk.from_worker(message, self._clock.now())
        if what in ("done", "failed"):
            self._worker.proved_itself()
            self._nursery.learn(message["imported"])
        if what == "failed" and message.get("transient") and message["error"]["code"] == "engine":
            self._renew_worker("its engine failed")

    # ---- from time to time ----------------------------------------------------------------------------------------

    def _say_telemetry(self) -> None:
        told = self._telemetry.message(self._config, self._clock.wall(), time.monotonic())
        told |= {"note": self._presence.note, "reload": self._last_reload, "sensors": self._groups.counts()}
        told["builds"] = self._builds.told()
        for node in self._sparkplug:
            told["sparkplug"] = node.counts()
            node.telemetry(told)
        self._outbox.telemetry(f"{self._config.base}/telemetry", msgspec.json.encode(told))

    def _check_disk(self) -> None:
        before = self._disk.full
        self._disk.look()
        if self._disk.full and not before:
            self._sweep()
            self._fault(f"the disk is full: {self._disk.full}")
        elif before and not self._disk.full:
            log.info("there is room on the disk again")

    def _check(self) -> None:
        self._check_disk()
        self._care.check(time.monotonic())
        if self._care.hangs:
            self._fault("the worker hangs")
        self._presence.tell()

    def _record(self) -> None:
        told = self._telemetry.message(self._config, self._clock.wall(), time.monotonic())
        self._recorder.note(
            self._clock.wall(), {k: told[k] for k in ("queue", "outbox", "worker", "memory_mb", "zones_c", "governor")}
        )

    def _feed_watchdog(self) -> None:
        """The loop turns, or we were not here; and the worker is alive, or it is being replaced."""
        if not self._care.hangs:
            notify("WATCHDOG=1")

    def _sweep(self) -> None:
        wanted = self._spool.undelivered() | self._desk.results.unstored()
        artifacts, now = self._config.artifacts, self._clock.now()
        sweep(
            self._config.artifacts_dir,
            artifacts.quota_mb << 20,
            artifacts.keep_days * 86400,
            now,
            lambda job_id: job_id in wanted or job_id in self._desk.entries,
        )
        with contextlib.suppress(SpoolError):  # a disk that takes nothing: the next sweep comes in a minute
            self._spool.forget(now - max(_REMEMBER_S, artifacts.keep_days * 86400))

    def _fault(self, why: str) -> None:
        log.error("%s", why)
        self._recorder.dump(why, self._clock.wall(), time.monotonic())

    # ---- the bus --------------------------------------------------------------------------------------------------

    def _birth(self, broker: list[str]) -> dict[str, Any]:
        problems = self._telemetry.problems(broker) + self._builds.problems() + self._governor.problems()
        return self._telemetry.birth(self._config, self._kinds, self._reception.site, problems)

    def _subscriptions(self) -> list[Subscription]:
        base = self._config.base
        verbs = ("submit", "cancel", "pause", "resume")
        triggers, signal = {t.topic for t in self._config.triggers.values()}, self._config.policy.signal
        return [
            *(Subscription(f) for f in (*(f"{base}/jobs/+/{verb}" for verb in verbs), *sorted(triggers))),
            Subscription(self._presence.topic, command=False),
            *(Subscription(t, qos=0) for t in self._groups.topics),
            *([Subscription(signal.topic, qos=0, command=False)] if signal else []),
        ]

    # ---- start, reload, stop --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Any:
        def stop(number: int, frame: Any) -> None:
            self._stop_signal = number

        def reload(number: int, frame: Any) -> None:
            self._reload_wanted = True

        previous = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, reload)
        fd = signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _reload(self) -> None:
        """Reads the config again. A bad one changes nothing and says why; keys that need a restart keep their value."""
        self._reload_wanted = False
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
        self._presence.say(self._last_reload)
        notify("READY=1")

    def _apply(self) -> None:
        """Gives the changed config to everyone. The children start afresh; what the worker had in hand goes on from there."""
        setup = {"config": msgspec.to_builtins(self._config)}
        models, problems = find_models(self._config)
        for problem in problems:
            log.warning("model left out: %s", problem)
        self._desk.config = self._reception.config = self._config
        self._governor.configure(self._config)
        self._reception.site = site_of(self._config, models)
        self._disk.folders = [Path(self._config.state_dir), self._config.artifacts_dir]
        self._disk.min_free_mb = self._config.queue.min_free_mb
        with contextlib.suppress(OSError):  # the disk's state says what is wrong with it
            self._config.artifacts_dir.mkdir(parents=True, exist_ok=True)
        self._check_disk()
        self._worker.setup = self._cameras.setup = setup
        self._builds.stop("the configuration was read again")
        self._renew_worker("has a new configuration")
        self._cameras.stop()
        self._cameras.restart_at = 0.0
        self._desk.drop_cameras(self._clock.now())
        self._groups = self._new_groups()
        self._bus.subscribe(self._subscriptions())
        for node in self._sparkplug:
            node.configure(self._config, self._birth([]))

    def _new_groups(self) -> Groups:
        told = [node.sample for node in self._sparkplug]
        return Groups(self._config, self._outbox, self._desk, self._clock.wall(), told)

    def _renew_worker(self, why: str) -> None:
        """A new worker goes on where this one stops."""
        log.info("the worker is renewed: %s", why)
        self._park_worker()
        self._worker.restart_at = 0.0
        self._desk.worker_restarted(self._clock.now())

    def _park_worker(self) -> None:
        """The worker ends at its next step, with what it has in hand written down."""
        for message in self._worker.park(_PARK_PATIENCE):
            self._desk.from_worker(message, self._clock.now())

    def _goodbye(self) -> None:
        """Accepted jobs stay in the spool; the plant is told before the connection ends."""
        notify("STOPPING=1\nSTATUS=stopping")
        self._builds.stop("the daemon stops")
        self._park_worker()
        self._governor.close(time.monotonic())
        self._cameras.stop()
        self._nursery.stop()
        self._outbox.pump(self._clock.now())
        mid = self._bus.publish(self._presence.topic, OFFLINE, retain=True)
        until = time.monotonic() + 2.0
        while mid is not None and (left := until - time.monotonic()) > 0:
            for event in self._bus.wait(left):
                if isinstance(event, Delivered):
                    self._outbox.delivered(event, self._clock.now())
                    mid = None if event.mid == mid else mid
        self._bus.stop()
        for node in self._sparkplug:
            node.stop()
        self._spool.close()
        log.info("stopped")


def _child_environment(config: Config) -> dict[str, str]:
    return {
        "PYTHONSAFEPATH": "1",  # nothing in the folder that we were started from is taken for a library
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",  # numpy's own threads would only get in the way of the network's
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(round(config.inputs.max_megapixels * 1e6)),
    }
