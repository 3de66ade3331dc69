"""Frames for the jobs that name a camera: asked for when such a job comes in, kept as files until it is over."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from .core.job import Entry
from .link import Link


class Frames:
    """Used by one thread."""

    def __init__(self, cameras: Link, folder: Path):
        self._cameras, self._folder = cameras, folder
        self.told: Callable[[str, str | None], None] | None = None
        """Who else wants to know of each frame: the camera's name, and why there is none."""

    def enter(self, entry: Entry) -> None:
        """A job begins its life: what its camera took before a restart is there, else a frame is asked for."""
        if entry.job.camera is None:
            return
        if self._path(entry.job.id).exists():
            entry.frame = str(self._path(entry.job.id))
        else:
            self._want(entry)

    def ask_again(self, entries: Iterable[Entry]) -> None:
        """The camera process is a new one: what the old one still owed is asked for again."""
        for entry in entries:
            if entry.waits_for_frame:
                self._want(entry)

    def take(self, entry: Entry, message: Mapping[str, Any]) -> str | None:
        """What the camera process answered: the frame is the entry's, or why there is none."""
        entry.waits_for_frame = False
        error = None if message["type"] == "frame" else str(message["message"])
        if self.told and entry.job.camera is not None:
            self.told(entry.job.camera, error)
        if error is None:
            entry.frame = message["path"]
        return error

    def sweep(self, keep: Container[str]) -> None:
        """Deletes the frames of jobs that are not to be kept."""
        for frame in self._folder.glob("*"):
            if frame.stem not in keep:
                frame.unlink(missing_ok=True)

    def drop(self, job_id: str) -> None:
        """The job is over."""
        self._path(job_id).unlink(missing_ok=True)

    def _want(self, entry: Entry) -> None:
        entry.waits_for_frame = True
        to = str(self._path(entry.job.id))
        self._cameras.send({"type": "grab", "id": entry.job.id, "camera": entry.job.camera, "to": to})

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.png"
