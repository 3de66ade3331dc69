"""A progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_WIDTH = 30
_LINE_PERIOD = 5.0
"""Seconds between two plain lines where there is no terminal."""


class Progress:
    """`with Progress("job") as p: p.show(0.4, "running")`; writes to stderr and leaves no half line behind."""

    def __init__(self, name: str, stream: TextIO | None = None):
        self._name, self._stream = name, stream or sys.stderr
        self._terminal, self._told, self._drawn = self._stream.isatty(), 0.0, False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def show(self, share: float, words: str = "") -> None:
        """share: 0 to 1."""
        share = min(max(share, 0.0), 1.0)
        if self._terminal:
            full = round(share * _WIDTH)
            bar = "#" * full + "-" * (_WIDTH - full)
            self._stream.write(f"\r\033[K{self._name} [{bar}] {share:4.0%} {words}")
            self._drawn = True
        elif time.monotonic() - self._told >= _LINE_PERIOD:
            self._told = time.monotonic()
            self._stream.write(f"{self._name} {share:.0%} {words}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the bar away, so that a line can be printed."""
        if self._drawn:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._drawn = False
