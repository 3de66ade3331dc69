"""What keeps the log readable and the flash alive: the same complaint again and again is counted, not written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_BURST = 10
_PERIOD = 60.0


class RateLimit(logging.Filter):
    """Passes ten records a minute of one kind (the same words, whatever fills them), then says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written; see `logging.Filter`."""
        key, now = (record.name, record.levelno, str(record.msg)), self._clock()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= _PERIOD:
            if count > _BURST:
                record.msg, record.args = f"{record.getMessage()} (and {count - _BURST} more like it before)", None
            since, count = now, 0
        if len(self._seen) > 1000:  # words that are never the same twice are somebody's bug, and no reason to grow
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        return count < _BURST
