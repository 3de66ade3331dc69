"""The flight recorder: the last minutes of what was logged and measured, in memory; written to the disk when something breaks.

Who comes later sees what led to a fault, and whether a start was slow or hung, without a log that wears out the flash.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .core.reply import stamp

log = logging.getLogger(__name__)

_KEEP = 600
_FILES = 8
_PERIOD = 60.0
"""Seconds between two files at least: a fault in a loop must not fill the disk."""


class Recorder(logging.Handler):
    """A ring of records; `dump` writes it to `folder`, oldest files deleted."""

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder
        self._ring: deque[dict[str, Any]] = deque(maxlen=_KEEP)
        self._dumped_at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log; see `logging.Handler`."""
        words = {"time": stamp(record.created), "level": record.levelname, "name": record.name, "text": record.getMessage()}
        self._ring.append(words)

    def note(self, wall: float, facts: Mapping[str, Any]) -> None:
        """What was measured."""
        self._ring.append({"time": stamp(wall), "level": "MEASURED", **facts})

    def dump(self, why: str, wall: float, tick: float) -> None:
        """Writes all of it, durable and whole or not at all; at most once a minute."""
        if self._dumped_at is not None and tick - self._dumped_at < _PERIOD:
            return
        self._dumped_at = tick
        name = f"{stamp(wall).replace(':', '').replace('.', '')}.jsonl"
        lines = [{"time": stamp(wall), "level": "FAULT", "text": why}, *self._ring]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in flights(self._folder)[_FILES - 1 :]:
                old.unlink(missing_ok=True)
            with (self._folder / f".{name}").open("w") as f:
                f.writelines(json.dumps(line) + "\n" for line in lines)
                f.flush()
                os.fsync(f.fileno())
            os.replace(f.name, self._folder / name)
        except OSError as e:
            log.warning("no flight record of '%s': %s", why, e)


def flights(folder: Path) -> list[Path]:
    """What has been recorded, the newest first."""
    with contextlib.suppress(OSError):
        return sorted(folder.glob("*.jsonl"), reverse=True)
    return []
