"""Whether there is room for another job: a gateway whose disk is full says so and waits, it does not break."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


class Disk:
    """The file systems that jobs write to. `full` is what was found last, in words, or None."""

    def __init__(self, folders: Sequence[Path], min_free_mb: int):
        self.folders, self.min_free_mb = folders, min_free_mb
        self.full: str | None = None

    def look(self) -> None:
        """Asks the kernel again: statvfs(3), a few microseconds for each folder."""
        self.full = None
        for folder in self.folders:
            try:
                free_mb = _free_mb(folder)
            except OSError as e:
                self.full = f"{folder}: {e.strerror}"
                return
            if free_mb < self.min_free_mb:
                self.full = f"{folder} has {free_mb:.0f} MB left, {self.min_free_mb} MB are needed to take a job"
                return

    def free_mb(self) -> float | None:
        """Free space of the fullest of them."""
        try:
            return round(min(_free_mb(folder) for folder in self.folders), 1)
        except OSError:
            return None


def _free_mb(folder: Path) -> float:
    """What is left for us: the blocks that are kept for root are not."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize / 1e6
