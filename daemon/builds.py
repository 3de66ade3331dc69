"""Networks that have still to be compiled for this machine (TensorRT plans), as jobs of lowest priority that the bus sees.

One at a time, each a child process (`engines.trt_build`) that begins only when there is nothing else to do, and then goes on
at low priority. Meanwhile the worker computes with something else; where a plan is there it has to be renewed (`fresh`). One
that failed or was cancelled is left alone until the daemon starts or reads its config again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..config.tree import Config
from ..engines.trt_build import CANCELLED, at_work
from .core.reply import stamp
from .outbox import Outbox
from .spool import Outgoing

log = logging.getLogger(__name__)

KIND = "engine-build"
_TIMES = 2
"""A plan that the worker asks for again although it was built is built once more, not for ever."""
_CANCEL_PATIENCE = 10.0
"""A child that was asked to end is killed after so many seconds; it takes five at most where it can."""
_STOP_PATIENCE = 2.0
"""The same where the daemon waits for it. What a killed build leaves is swept by the next one."""
_LONGEST_LINE = 1 << 16


@dataclass
class Build:
    """One network to be built; `state` is one of a job's."""

    id: str
    onnx: str
    ranges: Mapping[str, Any]
    gpu: Mapping[str, Any]
    state: str = "accepted"
    times: int = 1
    progress: float = 0.0
    phase: str = ""
    eta_ms: int | None = None
    error: str = ""
    began: float = 0.0
    cancelled_at: float | None = None


class Builds:
    """Used by one thread. `wall()`: seconds since 1970."""

    def __init__(self, config: Config, environment: Mapping[str, str], outbox: Outbox, wall: Callable[[], float]):
        self._base, self._cache, self._environment = config.base, config.plans_dir, {**os.environ, **environment}
        self._outbox, self._wall = outbox, wall
        self._builds: dict[str, Build] = {}
        self._running: Build | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self.fresh = False
        """There is a plan that the worker does not use yet."""

    def watched(self) -> tuple[Any, int] | None:
        """See `Watched`."""
        return (self._process.stdout, selectors.EVENT_READ) if self._process else None

    # ---- what is wanted -------------------------------------------------------------------------------------------

    def want(self, message: Mapping[str, Any]) -> None:
        """The worker has met a network that has still to be built."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(("build", message["model"], message["variant"], message["name"])))
        known = self._builds.get(name)
        if known and (known.state != "done" or self.fresh):  # a worker that is about to be renewed may ask for what is there
            return
        build = Build(name, message["onnx"], message["ranges"], message["gpu"], times=known.times + 1 if known else 1)
        self._builds[name] = build
        self._say(build)
        if build.times > _TIMES:
            self._finish(build, "failed", f"built {_TIMES} times, and the worker does not find it in {self._cache}")

    def cancel(self, build_id: str) -> bool:
        """Ends this build; one that is over stays what it is. False where there is no such build."""
        build = self._builds.get(build_id)
        if build is None:
            return False
        if build.state == "accepted":
            self._finish(build, "cancelled")
        elif build.state == "running" and build.cancelled_at is None and self._process:
            build.cancelled_at = time.monotonic()
            self._process.terminate()
        return True

    def look(self, idle: bool) -> None:
        """Once in each turn of the loop; `idle`: nothing else is running or waiting. Begins the next build.

        One that somebody else has begun (by hand, or a daemon before us that was killed) is waited for.
        """
        running = self._running
        if running is None:
            waiting = next((b for b in self._builds.values() if b.state == "accepted"), None)
            if waiting and idle and not at_work(self._cache):
                self._start(waiting)
        elif self._process and running.cancelled_at and time.monotonic() - running.cancelled_at >= _CANCEL_PATIENCE:
            self._process.kill()

    def _start(self, build: Build) -> None:
        given = ["--gpu", json.dumps(build.gpu), "--ranges", json.dumps(build.ranges)]
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "denoised.engines.trt_build", build.onnx, str(self._cache), *given],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        except OSError as e:
            self._finish(build, "failed", f"its process does not start: {e.strerror}")
            return
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._process, self._running, self._unread = process, build, b""
        build.state, build.began = "running", time.monotonic()
        self._say(build)

    # ---- the child ------------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Takes what the child says, its end included."""
        if self._process is None or self._process.stdout is None:
            return
        try:
            while data := os.read(self._process.stdout.fileno(), _LONGEST_LINE):
                *lines, self._unread = (self._unread + data).split(b"\n")
                for line in lines:
                    self._read(line)
        except BlockingIOError:
            return
        self._ended(self._leave(_STOP_PATIENCE))

    def _read(self, line: bytes) -> None:
        build = self._running
        assert build is not None
        try:
            said = json.loads(line)
            if "progress" in said:
                build.progress, build.phase = float(said["progress"]), str(said["phase"])
                build.eta_ms = round(1000 * said["eta_s"]) if "eta_s" in said else None
                self._say(build)
            build.error = said.get("error", "")
        except (ValueError, TypeError, KeyError, AttributeError):  # a library that writes on stdout as well
            log.info("%s: %s", build.id, line.decode(errors="replace"))

    def _ended(self, status: int | None) -> None:
        build, self._running = self._running, None
        assert build is not None
        if status == 0:
            build.progress, self.fresh = 1.0, True
            self._finish(build, "done")
        elif status == CANCELLED or build.cancelled_at is not None:
            self._finish(build, "cancelled")
        elif status is not None and status < 0:
            why = f"its process was killed by signal {-status}" + (", memory may have ended" if status == -9 else "")
            self._finish(build, "failed", why)
        else:
            self._finish(build, "failed", build.error or f"its process ended with status {status}")

    def _leave(self, patience: float) -> int | None:
        """Waits for the child's end, and ends it where it takes longer; None where it does not even die."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdout:
            process.stdout.close()
        for _ in range(2):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(patience)
            process.kill()
        return None

    def stop(self, why: str) -> None:
        """Ends what is under way and forgets everything: the next worker asks again for what it misses."""
        if self._process:
            self._process.terminate()
            self._leave(_STOP_PATIENCE)
        self._running = None
        for build in self._builds.values():
            if build.state in ("accepted", "running"):
                self._finish(build, "cancelled", why)
        self._builds.clear()
        self.fresh = False

    # ---- words ----------------------------------------------------------------------------------------------------

    def _finish(self, build: Build, state: str, why: str = "") -> None:
        build.state, build.error, build.eta_ms = state, why, None
        run_ms = round(1000 * (time.monotonic() - build.began)) if build.began else 0
        out: dict[str, Any] = {"id": build.id, "kind": KIND, "state": state, "time": stamp(self._wall()), "run_ms": run_ms}
        if state == "failed":
            log.error("%s failed, onnxruntime goes on: %s", build.id, why)
            out["error"] = {"code": "engine", "message": why}
        else:
            log.info("%s is %s%s", build.id, state, f": {why}" if why else "")
            if why:
                out["reason"] = why
        self._outbox.say("event", self._message(build, "result", out))

    def _say(self, build: Build) -> None:
        """Progress is for now or never, as a job's."""
        out = {"id": build.id, "kind": KIND, "state": build.state, "time": stamp(self._wall()), "progress": build.progress}
        out |= {"phase": build.phase} if build.phase else {}
        out |= {"eta_ms": build.eta_ms} if build.eta_ms is not None else {}
        message = self._message(build, "event", out)
        if build.phase:
            self._outbox.progress(message)
        else:
            log.info("%s is %s", build.id, build.state)
            self._outbox.say("event", message)

    def _message(self, build: Build, what: str, content: Mapping[str, Any]) -> Outgoing:
        payload = msgspec.json.encode(content)
        return Outgoing(f"{self._base}/jobs/{build.id}/{what}", payload, content_type="application/json")

    def told(self) -> list[dict[str, Any]]:
        """For the telemetry."""
        keys = ("id", "state", "progress", "phase", "eta_ms", "error")
        return [{key: getattr(build, key) for key in keys} for build in self._builds.values()]

    def problems(self) -> list[dict[str, str]]:
        """Builds that failed, for the retained status."""
        failed = [build for build in self._builds.values() if build.state == "failed"]
        return [{"code": "engine", "about": b.id, "message": f"{b.error}; onnxruntime computes instead"} for b in failed]
