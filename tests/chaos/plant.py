"""A small plant: a broker, a proxy, the real daemon behind it on a disk of its own, and a requester. All of it can fail."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import secrets
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import yaml
from denoised.demo.broker import Broker
from denoised.tests.chaos.proxy import Proxy
from denoised.tests.chaos.record import Record
from denoised.tests.chaos.requester import Requester, retained

HERE = Path(__file__).parent
KEEPALIVE = 2.0
PATIENCE = 60.0
"""Seconds that anything may take on a busy machine before the test fails; nothing waits for it to pass."""
_DISK_MB = 96


class Disk:
    """A folder; where the test may mount one (as root), a file system of its own that can be filled."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "none", str(folder)]
        self.can_be_filled = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Until nothing fits."""
        with (self.folder / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 12))

    def free(self) -> None:
        """What filled it is gone."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the mount back."""
        if self.can_be_filled:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


class Plant:
    """`with Plant(...) as plant`: everything is up. `heal` ends what was broken and starts what is dead."""

    def __init__(self, folder: Path, models: Path, small_disk: bool = True, **settings: Any):
        self.id = f"gw-{secrets.token_hex(4)}"
        self.base = f"denoised/{self.id}"
        self._folder = folder
        self.broker = Broker("mosquitto", folder)
        self.broker.__enter__()
        self.broker_up = True
        self.record = Record(self.base)
        self.proxy = Proxy(self.broker.port, self.record.watch)
        self.requester = Requester(self.broker.port, self.base)
        self.disk = Disk(folder / "disk") if small_disk else None
        self.state = folder / "disk" / "state"
        self._clock_file = folder / "clock"
        self._clock_file.write_bytes(bytes(8))
        with self._clock_file.open("r+b") as f:
            self._clock = mmap.mmap(f.fileno(), 8)
        self._config = folder / "denoised.yaml"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "gateway": {"id": self.id},
                    "mqtt": {"port": self.proxy.port, "keepalive": KEEPALIVE},
                    "state_dir": str(self.state),
                    "models": {"dir": str(models), "require_signature": False},
                    "telemetry": {"period": 0.5},
                    "queue": {"max_jobs": 60},
                    "engine": {"patience": 3.0},
                    "artifacts": {"keep_days": 36500},
                    "checkpoints": {"expected_uptime": 0.5, "write_budget_mb_per_day": 10_000_000},
                    **settings,
                }
            )
        )
        self.daemon: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._starts = 0
        self.worker_deaths = 0
        """How often a process of the daemon below its supervisor was ended by us."""

    def __enter__(self) -> Plant:
        self.start()
        self.wait(lambda: self.status() == "online", "the daemon is not online")
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_daemon()
        self.signal(self.orphans(), signal.SIGKILL)
        self.requester.close()
        self.proxy.close()
        self.broker.__exit__()
        if self.disk:
            self.disk.close()

    # ---- the daemon ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The daemon, unless it runs."""
        if self.daemon and self._ending:
            self.daemon.wait(PATIENCE)
        if self.running:
            return
        self._ending = False
        self._starts += 1
        path = [str(HERE / "clock"), str(HERE.parent / "daemon" / "toy"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": ":".join(path), "PYTHONUNBUFFERED": "1"}
        env |= {"CHAOS_CLOCK": str(self._clock_file), "CHAOS_TAG": self._tag}
        command = [sys.executable, "-m", "denoised", "run", "--config", str(self._config)]
        self.daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=self._folder)
        threading.Thread(target=self._keep_log, args=(self.daemon.stdout,), daemon=True).start()

    def _keep_log(self, words: IO[bytes]) -> None:
        """Through a pipe, as to a journal: a disk that fails shall not take the words about it."""
        with words, (self._folder / "daemon.log").open("ab", buffering=0) as log:
            while data := words.read1(65536):  # type: ignore[attr-defined]
                log.write(data)

    @property
    def running(self) -> bool:
        """Whether the supervisor's process lives."""
        return self.daemon is not None and self.daemon.poll() is None

    def logged(self) -> str:
        """Everything that the daemon has logged."""
        file = self._folder / "daemon.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def children(self) -> list[int]:
        """Every process of this start but the supervisor, those that have no children of their own last."""
        if not self.daemon or not self.running:
            return []
        # By their environment, not by the tree: a process whose parent was killed belongs to the daemon still.
        return sorted((pid for pid in _tagged(self._tag) if pid != self.daemon.pid), key=lambda pid: not _has_children(pid))

    def signal(self, pids: list[int], number: int) -> None:
        """To each of these processes that still lives."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_worker(self) -> None:
        """The worker is that child which has no children (cameras are not configured here)."""
        self.worker_deaths += 1
        self.signal([pid for pid in self.children() if not _has_children(pid)], signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """Callable from any thread: does not wait."""
        self.worker_deaths += 1
        if self.daemon:
            self._ending = True
            self.signal([self.daemon.pid], signal.SIGKILL)

    def kill_daemon(self) -> None:
        """All its processes at once, as a power cut would."""
        children = self.children()
        self.kill_supervisor()
        self.signal(children, signal.SIGKILL)
        if self.daemon:
            self.daemon.wait()

    def stop(self) -> None:
        """As systemd would: SIGTERM."""
        if self.daemon and self.running:
            self._ending = True
            self.daemon.send_signal(signal.SIGTERM)

    def orphans(self) -> list[int]:
        """Processes of earlier starts: their supervisor is dead, and they should be."""
        return sorted(set(_tagged(self.id, exactly=False)) - set(_tagged(self._tag)))

    @property
    def _tag(self) -> str:
        return f"{self.id}-{self._starts}"

    def limit_files(self, size: int | None) -> None:
        """No process of the daemon can write a file beyond `size` bytes any more: a disk that fails; None lifts it."""
        for pid in [*self.children(), *([self.daemon.pid] if self.daemon and self.running else [])]:
            with contextlib.suppress(ProcessLookupError):
                hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY if size is None else size, hard))

    def set_clock(self, shift: float) -> None:
        """The daemon's wall clock is off by this many seconds from now on."""
        self._clock[:] = struct.pack("d", shift)

    # ---- the bus -------------------------------------------------------------------------------------------------

    def kill_broker(self) -> None:
        """It forgets everything: retained messages, sessions, and what it had not handed on."""
        self.broker.kill()
        self.broker_up = False
        self.requester.forget()

    def start_broker(self) -> None:
        """On the same port, unless it runs."""
        if not self.broker_up:
            self.broker = Broker("mosquitto", self._folder, self.broker.port)
            self.broker.__enter__()
            self.broker_up = True

    def status(self) -> str | None:
        """The retained state, as somebody who comes now is told."""
        value = retained(self.broker.port, f"{self.base}/status")
        return value["state"] if value else None

    def heal(self) -> None:
        """Everything works again from here on."""
        self.record.armed.clear()
        self.proxy.heal()
        if self.disk:
            self.disk.free()
        self.limit_files(None)
        self.start_broker()
        self.start()
        # Who is frozen cannot see that its supervisor is gone, until it is thawed.
        self.signal([*self.children(), *self.orphans()], signal.SIGCONT)

    def wait(self, true: Callable[[], bool], what: str) -> None:
        """Until it is so; AssertionError with `what` where it never is."""
        until = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < until, what
            time.sleep(0.05)


def _tagged(tag: str, exactly: bool = True) -> list[int]:
    """The processes that inherited this CHAOS_TAG, or one that begins so."""
    wanted = f"CHAOS_TAG={tag}".encode() + (b"\0" if exactly else b"-")
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (process / "environ").read_bytes():
                    found.append(int(process.name))
    return found


def _has_children(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any((task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    return False
