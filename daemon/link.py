"""The supervisor's end of a child process (worker, cameras): starts it, talks over the wire, starts it again when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from . import wire

log = logging.getLogger(__name__)


class Link:
    """A child `python -m module FD`. Its first message is `setup`. Deaths are met with a growing delay."""

    def __init__(self, module: str, setup: Mapping[str, Any], environment: Mapping[str, str]):
        self._module, self.setup = module, setup
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.wire: wire.Wire | None = None
        self.ready = False
        self.facts: dict[str, Any] = {}
        self.restart_at: float | None = 0.0
        self.heard_at = 0.0
        """When the child last said something, or was last given something to do; monotonic seconds."""
        self._deaths = 0

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts the child; it says `ready` by itself."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )
        self.wire, self.ready, self.restart_at = wire.Wire(ours), False, None
        self.send({"type": "setup", **self.setup})

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
            if message["type"] == "ready":
                self.ready, self.facts = True, {k: v for k, v in message.items() if k != "type"}
        return messages

    def proved_itself(self) -> None:
        """The child did a whole piece of work: the next death is met without delay again."""
        self._deaths = 0

    def died(self, now: float) -> str:
        """Cleans up after a death; in words how it died. `restart_at` says when to start again."""
        code = self.stop()
        self._deaths += 1
        self.restart_at = now + (0.0 if self._deaths == 1 else min(0.5 * 2**self._deaths, 60.0))
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        log.error("%s died (%s), starts again in %.1f s", self._module, how, self.restart_at - now)
        return how

    def kill(self) -> None:
        """Ends the child without asking it; `receive` will notice."""
        if self._process:
            self._process.kill()

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

    def stop(self) -> int:
        """Ends the child now; its exit status."""
        process, self._process, self.ready = self._process, None, False
        if self.wire:
            self.wire.close()
            self.wire = None
        if process is None:
            return 0
        try:
            return process.wait(0.2)  # it ends by itself once its wire is closed
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
