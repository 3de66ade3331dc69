"""The process that holds the cameras: one thread per live source keeps the freshest frame; a request writes it to a file.

Sources are anything that OpenCV opens: a device, a URL or a GStreamer pipeline (kept open and read all the time), a picture,
a video file (its next frame) or a folder of frames (its newest picture). A frame that is too old is refused, never used.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ..config import typed
from ..config.tree import Camera, Config
from . import wire

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_REOPEN_AFTER = 2.0


class NoFrame(Exception):
    """Why there is no frame to use, in words for a result."""


class Source(Protocol):
    """Where frames come from."""

    def grab(self, to: Path) -> None:
        """Writes the freshest frame to `to`, or `NoFrame`."""


class Folder:
    """A folder of pictures, as a camera leaves them there: the newest one counts, copied byte for byte."""

    def __init__(self, folder: Path, max_age: float):
        self._folder, self._max_age = folder, max_age

    def grab(self, to: Path) -> None:
        """See `Source`."""
        pictures = [e for e in os.scandir(self._folder) if e.name.lower().endswith(_PICTURES) and not e.name.startswith(".")]
        if not pictures:
            raise NoFrame(f"no picture in {self._folder}")
        newest = max(pictures, key=lambda e: (e.stat().st_mtime_ns, e.name))
        age = time.time() - newest.stat().st_mtime
        if age > self._max_age:
            raise NoFrame(f"the newest frame, {newest.name}, is {age:.1f} s old; max_age is {self._max_age:g} s")
        shutil.copyfile(newest.path, to)


class Picture:
    """One picture file, always the same."""

    def __init__(self, path: Path):
        self._path = path

    def grab(self, to: Path) -> None:
        """See `Source`."""
        shutil.copyfile(self._path, to)


class Video:
    """A video file: each request takes its next frame, from the start again at its end."""

    def __init__(self, path: Path):
        self._path, self._capture = path, cv2.VideoCapture(str(path))

    def grab(self, to: Path) -> None:
        """See `Source`."""
        ok, frame = self._capture.read()
        if not ok:
            self._capture = cv2.VideoCapture(str(self._path))
            ok, frame = self._capture.read()
        if not ok:
            raise NoFrame(f"{self._path} holds no frame that OpenCV can read")
        _write(frame, to)


class Stream:
    """A live source, read all the time so that its newest frame is at hand; opened again when it fails."""

    def __init__(self, source: str, max_age: float):
        self._source, self._max_age = source, max_age
        self._newest: tuple[float, np.ndarray[Any, Any]] | None = None
        self._error = "not opened yet"
        threading.Thread(target=self._read, daemon=True).start()

    def grab(self, to: Path) -> None:
        """See `Source`; waits for the first frame for as long as a frame may be old."""
        until = time.monotonic() + self._max_age
        while self._newest is None and time.monotonic() < until:
            time.sleep(0.01)
        newest = self._newest
        if newest is None:
            raise NoFrame(f"{self._source}: {self._error}")
        age = time.monotonic() - newest[0]
        if age > self._max_age:
            raise NoFrame(
                f"{self._source}: the newest frame is {age:.1f} s old; max_age is {self._max_age:g} s ({self._error})"
            )
        _write(newest[1], to)

    def _read(self) -> None:
        while True:
            capture = cv2.VideoCapture(self._source)
            if not capture.isOpened():
                self._error = "OpenCV cannot open it"
            while True:
                ok, frame = capture.read()
                if not ok:
                    break
                self._newest, self._error = (time.monotonic(), frame), "reading"
            if self._error == "reading":
                self._error = "the stream ended"
            capture.release()
            time.sleep(_REOPEN_AFTER)


def open_source(camera: Camera) -> Source:
    """The source that a camera's config names."""
    path = Path(camera.source)
    if path.is_dir():
        return Folder(path, camera.max_age)
    if path.is_file():
        return Picture(path) if path.suffix.lower() in _PICTURES else Video(path)
    return Stream(camera.source, camera.max_age)


def _write(frame: np.ndarray[Any, Any], to: Path) -> None:
    ok, png = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise NoFrame("the frame could not be encoded as PNG")
    to.write_bytes(png.tobytes())


def _serve(line: wire.Wire, config: Config) -> None:
    sources = {name: open_source(camera) for name, camera in config.cameras.items()}
    (Path(config.state_dir) / "frames").mkdir(parents=True, exist_ok=True)
    line.send({"type": "ready"})
    while True:
        for message in line.receive():
            to = Path(message["to"])
            part = to.with_suffix(".part")
            try:
                sources[message["camera"]].grab(part)
                os.replace(part, to)
                line.send({"type": "frame", "id": message["id"], "path": str(to)})
            except (NoFrame, OSError, cv2.error, KeyError) as e:  # KeyError: a camera that the config has no more
                line.send({"type": "no-frame", "id": message["id"], "message": f"camera {message['camera']}: {e}"})
        select.select([line], [line] if line.unsent else [], [])
        line.flush()


def main(fd: int) -> None:
    """The process, forked by the zygote; `fd` is its end of the wire to the supervisor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = wire.Wire(socket.socket(fileno=fd))
    try:
        setup = line.wait_for_one()
        _serve(line, typed.read(setup["config"], Config))
    except wire.WireClosed:
        pass
