"""Keeps the artifact folder inside its quota and retention: the oldest jobs go first, never one that is not delivered.

The folder of a job that is over carries the end in gateway time (`date_folder`): a clock that is put right after the boot
makes nothing old.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .core.job import job_of

log = logging.getLogger(__name__)


def date_folder(folder: Path, now: float) -> None:
    """Says when the job of this folder ended, in gateway time."""
    with contextlib.suppress(FileNotFoundError):  # it made no artifacts
        os.utime(folder, (now, now))


def sweep(folder: Path, quota_bytes: int, keep_s: float, now: float, keep: Callable[[str], bool]) -> list[str]:
    """Deletes whole job folders that are too old or too much, except where `keep(job id)`; returns their ids."""
    jobs = []
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.name.startswith("."):
                size = sum(f.stat().st_size for f in path.iterdir())
                jobs.append((path.stat().st_mtime, size, path))
    except OSError as e:
        log.warning("artifacts: %s", e)
        return []
    total, gone = sum(size for _, size, _ in jobs), []
    for changed, size, path in sorted(jobs):
        if total <= quota_bytes and now - changed <= keep_s:
            break
        if keep(job_of(path.name)):
            continue
        shutil.rmtree(path, ignore_errors=True)
        total -= size
        gone.append(job_of(path.name))
    if gone:
        log.info("artifacts of %d jobs deleted (quota or age)", len(gone))
    return gone
