"""The simulated line: a camera that drops frames into a folder and fires a trigger, sensors that lose samples on the way.

It is a plant like any other to the daemon: it speaks MQTT and knows nothing of `denoised`.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..config.tree import Mqtt
from ..daemon.client import Client
from .plant import Link, Plant, Row
from .surface import frame

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class Recording:
    """Real sensor rows from a CSV file with a header, as `Plant` gives simulated ones; columns without numbers are left out."""

    def __init__(self, path: Path, seed: int, period_s: float, most: int = 8):
        with path.open(newline="") as f:
            reader = csv.DictReader(f)
            rows = [row for _, row in zip(range(20_000), reader)]
        if not rows:
            raise ValueError(f"{path}: no rows after the header")
        columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in rows[0] if name}
        varying = [n for n, v in columns.items() if np.isfinite(v).mean() > 0.5 and np.nanstd(v) > 0]
        # A column that nearly always grows is a clock or a row number, not a sensor.
        self.tags = tuple(n for n in varying if (np.diff(columns[n]) > 0).mean() < 0.95)[:most]
        if not self.tags:
            raise ValueError(f"{path}: no column of numbers that vary; found {', '.join(columns)}")
        self._rows = np.stack([columns[n] for n in self.tags], axis=1)
        self._link, self._period, self._next = Link(seed, len(self.tags), period_s), period_s, 0

    def step(self) -> Row:
        """The next row, NaN where the recording itself has a hole; from the start again at the end."""
        row = self._rows[self._next % len(self._rows)]
        lost = self._link.step()
        delivered = tuple(None if gone or math.isnan(v) else float(v) for v, gone in zip(row, lost))
        self._next += 1
        return Row(self._next * self._period, tuple(map(float, row)), delivered)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


class Line(threading.Thread):
    """Runs until `stop`; `rows[n]` is what the sensors really measured in period n, and what of it was sent."""

    def __init__(
        self,
        mqtt: Mqtt,
        sensors: Plant | Recording,
        period: float,
        frames: Path,
        recipes: Sequence[str],
        camera_period: float,
        seed: int,
        real_frames: Path | None = None,
    ):
        super().__init__(daemon=True)
        self._client = Client(mqtt, [])
        self._sensors, self._period, self._frames, self._recipes = sensors, period, frames, recipes
        self._camera_period, self._seed, self._halt = camera_period, seed, threading.Event()
        self._real = sorted(p for p in real_frames.rglob("*") if _is_good_part(p)) if real_frames else None
        if self._real is not None and not self._real:
            raise ValueError(f"{real_frames}: no pictures ({', '.join(_PICTURES)}) in it")
        self.rows: dict[int, Row] = {}
        self.parts: list[str] = []

    def stop(self) -> None:
        """No more parts and samples; returns when the last is sent."""
        self._halt.set()
        self.join()

    def run(self) -> None:
        """Sends one row of samples per period, a third into it, and a part every `camera_period` seconds."""
        next_part = time.time() + 1.0
        number = math.floor(time.time() / self._period) + 1
        with self._client:
            while not self._halt.wait(max(0.0, (number + 1 / 3) * self._period - time.time())):
                row = self.rows[number] = self._sensors.step()
                for tag, value in zip(self._sensors.tags, row.delivered):
                    if value is not None:
                        self._client.publish(f"plant/line1/sensors/{tag}", value)
                number += 1
                if time.time() >= next_part:
                    next_part += self._camera_period
                    self._part()

    def _part(self) -> None:
        n = len(self.parts)
        name = f"part-{n:04d}"
        part = self._frames / f".{name}.part"
        if self._real:
            shutil.copyfile(self._real[n * 7919 % len(self._real)], part)
        else:
            ok, png = cv2.imencode(".png", frame(self._seed, n), [cv2.IMWRITE_PNG_COMPRESSION, 1])
            assert ok
            part.write_bytes(png.tobytes())
        os.utime(part)
        os.replace(part, self._frames / f"{name}.png")  # OpenCV looks at the content, not at the name
        self.parts.append(name)
        recipe = self._recipes[n % len(self._recipes)]
        self._client.publish("plant/line1/camera", {"part": name, "ok": True, "recipe": recipe, "severity": 0.85})


def _is_good_part(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES and not path.stem.endswith("_mask")
