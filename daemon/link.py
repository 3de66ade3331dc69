"""The supervisor's end of its child processes: the zygote, and what is forked from it (worker, cameras).

A child is started, spoken with over its wire, and started again when it dies; deaths in a row are met with a growing delay.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from . import wire

log = logging.getLogger(__name__)


class Watched(Protocol):
    """Something with a file descriptor that comes and goes."""

    def watched(self) -> tuple[Any, int] | None:
        """The file object to wait for and for what (`selectors.EVENT_*`), while there is one."""


def watch(selector: selectors.BaseSelector, wanted: Sequence[Watched], watched: dict[Watched, tuple[Any, int]]) -> None:
    """Registers the line of each as it is now: for reading always, for writing while something is unsent."""
    for child in list(watched):
        now = child.watched() if child in wanted else None
        if now is None or now[0] is not watched[child][0]:
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(watched[child][0])
            del watched[child]
    for child in wanted:
        now = child.watched()
        if now is None:
            continue
        if child not in watched:
            selector.register(*now)
        elif watched[child][1] != now[1]:
            selector.modify(*now)
        watched[child] = now


class Nursery:
    """The zygote. Children outlive its death; the next one forks the next children. Used by one thread."""

    def __init__(self, backend: str, modules: Sequence[str], environment: Mapping[str, str]):
        self._backend, self._environment = backend, {**os.environ, **environment}
        self._modules = list(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._unborn: list[Callable[[int], None]] = []
        self._ended: dict[int, int] = {}
        self._deaths = 0
        self.last_death: str | None = None
        self.restart_at: float | None = 0.0

    @property
    def pid(self) -> int | None:
        """The zygote's process id while it lives."""
        return self._process.pid if self._process else None

    def watched(self) -> tuple[Any, int] | None:
        """See `Watched`."""
        return (self._sock, selectors.EVENT_READ) if self._sock else None

    def start(self) -> None:
        """Starts the zygote; what is asked of it waits until it has imported everything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "denoised.daemon.zygote", str(theirs.fileno()), self._backend, *self._modules],
                pass_fds=[theirs.fileno()],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        except OSError as e:  # no memory, no process: later, then
            self._deaths += 1
            self.restart_at = time.monotonic() + max(1.0, delay(self._deaths))
            log.error("the zygote does not start: %s; tried again in %.1f s", e, self.restart_at - time.monotonic())
            ours.close()
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._sock, self.restart_at = ours, None

    def fork(self, module: str, end: socket.socket, born: Callable[[int], None]) -> None:
        """A child that runs `module.main(fd)` with this end of a wire; `born` is told its process id."""
        if self._sock is None:
            self.start()
        if self._sock is None:  # the end is closed by whoever made it, and the wire tells
            return
        # Where the zygote dies before it forks, the end dies with it, and the wire tells.
        with contextlib.suppress(OSError):
            socket.send_fds(self._sock, [json.dumps({"fork": module}).encode()], [end.fileno()])
            self._unborn.append(born)

    def learn(self, modules: Sequence[str]) -> None:
        """What a child had to import by itself is there from the start in the next one."""
        fresh = [m for m in modules if m not in self._modules]
        self._modules += fresh
        if fresh and self._sock:
            with contextlib.suppress(OSError):
                self._sock.send(json.dumps({"import": fresh}).encode())

    def hear(self, now: float) -> None:
        """Takes what the zygote says, its death included (`restart_at`)."""
        while self._sock:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                process = self._process
                with contextlib.suppress(subprocess.TimeoutExpired):  # its end of the line closes a moment before it ends
                    if process:
                        process.wait(0.2)
                self.stop()
                self._deaths += 1
                self.last_death = how_it_ended(process.returncode if process else None)
                self.restart_at = now + delay(self._deaths)
                log.error("the zygote died (%s); a new one starts in %.1f s", self.last_death, self.restart_at - now)
                return
            words = json.loads(data)
            if "forked" in words:
                self._unborn.pop(0)(words["forked"])
            elif "ended" in words:
                self._ended[words["ended"]] = words["status"]
                if len(self._ended) > 64:  # of children whose end nobody asks about
                    self._ended.pop(next(iter(self._ended)))
            else:
                self._deaths = 0

    def status(self, pid: int, patience: float) -> int | None:
        """How a child ended, as `Popen.returncode` says it; None where nobody knows."""
        until = time.monotonic() + patience
        while pid not in self._ended and self._sock and (left := until - time.monotonic()) > 0:
            select.select([self._sock], [], [], left)
            self.hear(time.monotonic())
        return self._ended.pop(pid, None)

    def stop(self) -> None:
        """Ends the zygote; its children see to themselves."""
        if self._sock:
            self._sock.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._sock = self._process = None
        self._unborn.clear()


class Link:
    """A child forked from the nursery that runs `module`. Its first message is `setup`."""

    def __init__(self, module: str, nursery: Nursery, setup: Mapping[str, Any]):
        self._module, self._nursery, self.setup = module, nursery, setup
        self._pidfd: int | None = None
        self.pid: int | None = None
        """The child's process id while it lives; it is known a moment after the start."""
        self.wire: wire.Wire | None = None
        self.ready = False
        self.facts: dict[str, Any] = {}
        self.restart_at: float | None = 0.0
        self.heard_at = 0.0
        """When the child last said something, or was last given something to do; monotonic seconds."""
        self.worked = False
        """It has done a whole piece of work since it was started."""
        self.deaths = 0
        """In a row, since it last did a whole piece of work."""
        self.last_death = ""

    def watched(self) -> tuple[Any, int] | None:
        """See `Watched`."""
        if self.wire is None:
            return None
        return self.wire, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.wire.unsent else 0)

    def start(self, hurry: bool = False) -> None:
        """Starts the child; it says `ready` by itself. hurry: there is work for it already."""
        ours, theirs = socket.socketpair()
        line = wire.Wire(ours)
        self.wire, self.ready, self.worked, self.restart_at = line, False, False, None
        with theirs:
            self._nursery.fork(self._module, theirs, lambda pid: self._born(pid, line))
        self.send({"type": "setup", "hurry": hurry, **self.setup})

    def _born(self, pid: int, line: wire.Wire) -> None:
        if self.wire is line:
            self.pid = pid
            with contextlib.suppress(ProcessLookupError):  # it has ended already, and been waited for
                self._pidfd = os.pidfd_open(pid)

    def send(self, message: Mapping[str, Any]) -> None:
        """To the child; a dead child is noticed by `receive`."""
        if self.wire:
            self.heard_at = time.monotonic()
            with contextlib.suppress(wire.WireClosed):
                self.wire.send(message)

    def receive(self) -> list[dict[str, Any]]:
        """What the child said; `wire.WireClosed` when it has died."""
        messages: list[dict[str, Any]] = self.wire.receive() if self.wire else []
        if messages:
            self.heard_at = time.monotonic()
        for message in messages:
            if message["type"] in ("ready", "probed"):
                self.ready, self.facts = True, {k: v for k, v in message.items() if k != "type"}
        return messages

    def proved_itself(self) -> None:
        """The child did a whole piece of work: the next death is met without delay again."""
        self.deaths, self.worked = 0, True

    def died(self, now: float) -> str:
        """Cleans up after a death; in words how it died. `restart_at` says when to start again."""
        code = self.stop()
        self.deaths += 1
        self.restart_at = now + delay(self.deaths)
        how = how_it_ended(code)
        if code is None and self._nursery.last_death:  # it was never born, or there is nobody left to know
            how = f"with the zygote, {self._nursery.last_death}"
        log.error("%s died (%s), starts again in %.1f s", self._module, how, self.restart_at - now)
        self.last_death = how
        return how

    def kill(self) -> None:
        """Ends the child without asking it; `receive` will notice."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        elif self.wire:  # not even born: without its wire it ends by itself
            self.wire.close()
            self.wire, self.restart_at = None, 0.0

    def park(self, patience: float) -> list[dict[str, Any]]:
        """Asks the child to write down what it has in hand and to end; its last words. Waits `patience` seconds at most."""
        last: list[dict[str, Any]] = []
        until = time.monotonic() + patience
        self.send({"type": "park"})
        with contextlib.suppress(wire.WireClosed):
            while self.wire and (left := until - time.monotonic()) > 0:
                select.select([self.wire], [self.wire] if self.wire.unsent else [], [], left)
                self.wire.flush()
                last += self.receive()
        self.stop()
        return last

    def stop(self) -> int | None:
        """Ends the child now; its exit status where it is known. It is not started again by itself."""
        self._nursery.hear(time.monotonic())
        pid, pidfd = self.pid, self._pidfd
        self.pid = self._pidfd = self.restart_at = None
        self.ready = False
        if self.wire:
            self.wire.close()
            self.wire = None
        if pid is None:
            return None
        if pidfd is not None:
            if not select.select([pidfd], [], [], 0.2)[0]:  # it ends by itself once its wire is closed
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], 5.0)
            os.close(pidfd)
        return self._nursery.status(pid, 0.05)


def how_it_ended(status: int | None) -> str:
    """An exit status as `Popen.returncode` has it, in words; with what to do where that is known."""
    if status is None:
        return "nobody knows how"
    if status == -signal.SIGILL:
        return (
            f"killed by signal {signal.SIGILL:d}, an illegal instruction: a library, most likely onnxruntime, is built for a "
            "newer CPU than this one; install another version of it"
        )
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def delay(deaths: int) -> float:
    """Seconds before a child that died so many times in a row is started again."""
    return 0.0 if deaths <= 1 else min(0.5 * 2**deaths, 60.0)
