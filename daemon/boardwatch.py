"""Looks at the board in a thread of its own: a sensor on a slow bus, or a program that is asked, may take its time.

Readings are taken once a second and when somebody asks; they come out of a queue. Clock caps are set by the same thread; one
that the board refuses leaves the clocks free, and is tried again once a minute.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .board.board import Board
from .core.reading import Reading

log = logging.getLogger(__name__)

_CLOSE_PATIENCE = 2.0
_AGAIN_S = 60.0


def process_load(pid: Callable[[], int | None], cores: int) -> Callable[[], float]:
    """For a simulated board: a function that gives the CPU time which that process used since it was asked before, as a share
    of so many cores; a process of another id begins anew."""
    before: list[Any] = [None, 0.0, 0.0]

    def load() -> float:
        now, process = time.monotonic(), pid()
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            before[:] = None, 0.0, now
            return 0.0
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        share = (used - before[1]) / max(1e-3, now - before[2]) / cores if before[0] == process else 0.0
        before[:] = process, used, now
        return min(1.0, max(0.0, share))

    return load


class BoardWatch:
    """`take`, `cap` and `look` are for the supervisor's thread; none of them waits."""

    def __init__(self, board: Board, period: float):
        self._board, self._period = board, period
        self.traits = board.traits
        self.cap_refused: str | None = None
        """Why the clocks are free and not what `cap` asked for."""
        self._wanted_cap = self._cap = 1.0
        self._again_at = 0.0
        self._readings: deque[Reading] = deque(maxlen=16)
        self._asked, self._ended = threading.Event(), False
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)
        self._thread.start()

    def watched(self) -> tuple[Any, int] | None:
        """See `link.Watched`."""
        return self._wake_in, selectors.EVENT_READ

    def take(self) -> list[Reading]:
        """What has been read since the last call."""
        try:
            self._wake_in.recv(4096)
        except BlockingIOError:
            return []
        out = []
        while self._readings:
            out.append(self._readings.popleft())
        return out

    def look(self) -> None:
        """Asks for a reading now: work begins or ends."""
        self._asked.set()

    def cap(self, share: float) -> None:
        """Wants the clocks held at or below this share of their top; see `cap_refused`."""
        if share != self._wanted_cap:
            self._wanted_cap = share
            self._asked.set()

    def close(self) -> None:
        """Gives the clocks back, unless the board does not answer."""
        self._ended = True
        self._asked.set()
        self._thread.join(_CLOSE_PATIENCE)

    def _run(self) -> None:
        while not self._ended:
            try:
                self._set_cap(time.monotonic())
                reading = self._board.read(time.monotonic())
            except Exception as e:  # a board that breaks its promise must not leave us without a watch
                log.exception("board")
                reading = Reading(time.monotonic(), None, problems={"board": f"{type(e).__name__}: {e}"})
            self.traits = self._board.traits
            self._readings.append(reading)
            with contextlib.suppress(BlockingIOError):  # it has been told already
                self._wake_out.send(b"r")
            self._asked.wait(self._period)
            self._asked.clear()
        self._board.close()

    def _set_cap(self, now: float) -> None:
        if self._wanted_cap == self._cap and (self.cap_refused is None or now < self._again_at):
            return
        self._cap, self._again_at = self._wanted_cap, now + _AGAIN_S
        refused = self._board.cap_clock(self._cap)
        if refused and refused != self.cap_refused:
            log.warning("the clocks stay free: %s", refused)
        self.cap_refused = refused
