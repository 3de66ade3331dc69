"""The same work with and without the governor, on a board that is emulated beside it: daemon, broker and networks are real.

The board is another program's (its path is the argument): it plays /sys in a folder, takes its load from the CPU time that the
daemon really uses, heats up by physics of its own, and slows the daemon down where the board would. How much of this machine's
CPU counts as the whole board is measured first, so that it works on a busy machine as well.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from denoised.config import typed
from denoised.config.tree import Mqtt
from denoised.daemon.client import Client
from denoised.demo.draw import FAINT, GREY, INK, PAPER, save, text
from rig import BASE, Daemon, cpu_s, running, window

WITH, WITHOUT = (40, 140, 40), (30, 30, 210)
_JOBS_AHEAD = 3
_MEASURE_S = 3.0
_ROWS = 400


@dataclass(frozen=True)
class Run:
    """What the board went through (its own log, a row a second of its time), and what the daemon said meanwhile.

    How much work was done is no figure of this bench: it depends on what else this machine does, and a cap on the emulated
    board's clock costs it nothing.
    """

    rows: list[dict[str, float]]
    telemetry: list[dict[str, Any]]

    @property
    def throttle_events(self) -> int:
        return int(self.rows[-1]["throttle_events"])

    @property
    def hottest_c(self) -> float:
        return max(row["t_die"] for row in self.rows)

    def words(self) -> str:
        """In one line."""
        slowed, power = (sum(row[name] for row in self.rows) / len(self.rows) for name in ("throttled", "power"))
        return (
            f"{self.throttle_events:3d} throttle events, {slowed:4.0%} of the time throttled, hottest {self.hottest_c:.2f} C, "
            f"{power:.2f} W in the mean"
        )


@contextlib.contextmanager
def board(tool: Path, folder: Path, watch: int, cores: float, how: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """The emulated board, watching that process and all below it."""
    command = [sys.executable, str(tool), "run", "--preset", how.preset, "--root", str(folder / "sys"), "--watch", str(watch)]
    command += ["--speedup", str(how.speedup), "--ambient", str(how.ambient), "--log", str(folder / "board.csv")]
    command += ["--host-cores", f"{cores:.3f}", "--seconds", str(how.seconds)]
    command += ["--t-start", str(how.start_c)] if how.start_c is not None else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def tree_of(tool: Path, folder: Path, preset: str) -> None:
    """The board's files before it is switched on: a daemon looks for sensors when it starts."""
    command = [
        sys.executable,
        str(tool),
        "run",
        "--preset",
        preset,
        "--root",
        str(folder / "sys"),
        "--seconds",
        "0",
        "--",
        "true",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def play(tool: Path, folder: Path, governor: str, how: argparse.Namespace, cores: float | None) -> tuple[Run, float]:
    """One run; with `cores` None the share of a CPU that the daemon gets under full load is measured first and given back."""
    folder.mkdir(parents=True)
    tree_of(tool, folder, how.preset)
    seen = {"sysfs_root": str(folder / "sys"), "speedup": how.speedup}
    settings = {"board": seen, "policy": {"governor": governor}, "engine": {"threads": 1}}
    with running(folder, **settings) as daemon, Client(typed.read({"port": daemon.port}, Mqtt), [f"{BASE}/#"]) as client:
        load = Load(client)
        if cores is None:
            load.carry_on(5.0)
            before, began = _used(daemon), time.monotonic()
            load.carry_on(_MEASURE_S)
            cores = (_used(daemon) - before) / (time.monotonic() - began)
        with board(tool, folder, daemon.process.pid, cores, how) as emulated:
            while emulated.poll() is None:
                load.carry_on(0.5)
    with (folder / "board.csv").open() as log:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(log)]
    return Run(rows, load.telemetry), cores


class Load:
    """Keeps some jobs waiting all the time."""

    def __init__(self, client: Client):
        self._client, self._params = client, window(_ROWS)
        self._sent = self._out = 0
        self.telemetry: list[dict[str, Any]] = []

    def carry_on(self, seconds: float) -> None:
        """Takes answers and sends the next jobs."""
        while self._out < _JOBS_AHEAD:
            self._sent, self._out = self._sent + 1, self._out + 1
            self._client.publish(f"{BASE}/jobs/sensor-imputation/submit", {"id": f"load-{self._sent}", "params": self._params})
        for message in self._client.messages(seconds):
            if message.topic.endswith("/result"):
                self._out -= 1
                result = json.loads(message.payload)
                if result["state"] != "done":
                    raise RuntimeError(f"a job that should be done: {result}")
            elif message.topic == f"{BASE}/telemetry":
                self.telemetry.append(json.loads(message.payload))


def _used(daemon: Daemon) -> float:
    used = 0.0
    for pid in daemon.pids():
        with contextlib.suppress(OSError):
            used += cpu_s(pid)
    return used


def draw(without: Run, governed: Run, to: Path, how: argparse.Namespace) -> None:
    """Temperature and power, both runs over the board's time."""
    image = np.full((560, 900, 3), PAPER, np.uint8)
    text(image, f"{how.preset} at {how.ambient:g} C, the same jobs: ", (60, 26), 0.5, INK, 1)
    text(image, "without the governor", (400, 26), 0.5, WITHOUT, 1)
    text(image, "with it", (590, 26), 0.5, WITH, 1)
    limit = next((t["governor"]["limit_c"] for t in governed.telemetry if t.get("governor", {}).get("limit_c")), None)
    trip = next((t["governor"]["throttle_c"] for t in governed.telemetry if t.get("governor", {}).get("throttle_c")), None)
    marks = {name: value for name, value in (("limit", limit), ("throttles", trip)) if value is not None}
    _panel(image, (50, 300), "C", "t_die", (without, governed), marks)
    _panel(image, (340, 520), "W", "power", (without, governed), {})
    text(image, "s of the board's time", (400, 552), 0.45, GREY, 1)
    save(to, image)


def _panel(
    image: np.ndarray, rows: tuple[int, int], unit: str, name: str, runs: tuple[Run, Run], marks: dict[str, float]
) -> None:
    top, bottom, left, right = *rows, 60, 880
    values = [row[name] for run in runs for row in run.rows] + list(marks.values())
    low, high = min(values), max(values) + (max(values) - min(values)) * 0.05
    end = max(run.rows[-1]["t"] for run in runs)

    def at(t: float, value: float) -> tuple[int, int]:
        return round(left + t / end * (right - left)), round(bottom - (value - low) / max(high - low, 1e-9) * (bottom - top))

    for n in range(6):
        value, t = low + (high - low) * n / 5, end * n / 5
        cv2.line(image, at(0, value), at(end, value), FAINT, 1)
        text(image, f"{value:.1f}", (14, at(0, value)[1] + 4), 0.4, GREY, 1)
        text(image, f"{t:.0f}", (at(t, low)[0] - 10, bottom + 16), 0.4, GREY, 1)
    text(image, unit, (left + 6, top + 12), 0.4, GREY, 1)
    for words, value in marks.items():
        cv2.line(image, at(0, value), at(end, value), GREY, 1)
        text(image, f"{words} {value:g}", (right - 120, at(0, value)[1] - 5), 0.4, GREY, 1)
    for run, colour in zip(runs, (WITHOUT, WITH)):
        line = np.array([at(row["t"], row[name]) for row in run.rows], np.int32)
        cv2.polylines(image, [line], False, colour, 1, cv2.LINE_AA)


def main() -> int:
    """0 where the governed board never throttled and the other one did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", type=Path, help="the emulator, thermal_board.py")
    parser.add_argument("--preset", default="rpi5-passive")
    parser.add_argument("--ambient", type=float, default=30.0)
    parser.add_argument("--start-c", type=float, help="temperature at the beginning; default: the board's idle one")
    parser.add_argument("--seconds", type=float, default=900.0, help="of the board's time")
    parser.add_argument("--speedup", type=float, default=5.0, help="the board's seconds per second")
    parser.add_argument("--png", type=Path, help="a picture of both runs")
    how = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="denoised-live-") as path:
        without, cores = play(how.tool, Path(path) / "off", "off", how, None)
        print(f"without {without.words()}", flush=True)
        governed, _ = play(how.tool, Path(path) / "on", "on", how, cores)
        print(f"with    {governed.words()}")
    if how.png:
        draw(without, governed, how.png, how)
    return 0 if governed.throttle_events == 0 and without.throttle_events > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
