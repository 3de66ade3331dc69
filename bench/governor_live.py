"""The same work with and without the governor: daemon, broker and networks are real, the board is simulated.

Without an argument it is the daemon's own simulated board. With one it is another program's, which plays /sys in a folder,
takes its load from the CPU time that the daemon really uses, heats up by physics of its own and slows the daemon down where a
board would; how much of this machine's CPU counts as the whole board is measured first. Either way it works on a busy machine.
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
_SMOOTH = 10
"""Rows before and after that a shown power is the mean of."""


@dataclass(frozen=True)
class Run:
    """What the board went through, and what the daemon said meanwhile.

    How much work was done is no figure of this bench: it depends on what else this machine does, and a cap on such a board's
    clock costs it nothing.
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
        words = f"{self.throttle_events:3d} throttle events, hottest {self.hottest_c:.2f} C"
        if "throttled" in self.rows[0]:
            words += f", {sum(row['throttled'] for row in self.rows) / len(self.rows):4.0%} of the time throttled"
        return words


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
    command = [sys.executable, str(tool), "run", "--preset", preset, "--root", str(folder / "sys"), "--seconds", "0"]
    subprocess.run([*command, "--", "true"], check=True, stdout=subprocess.DEVNULL)


def play(folder: Path, governor: str, how: argparse.Namespace, cores: float | None) -> tuple[Run, float | None]:
    """One run. cores: the CPUs that count as a whole emulated board; None: measured under full load, and given back."""
    folder.mkdir(parents=True)
    if how.emulator:
        tree_of(how.emulator, folder, how.preset)
        seen = {"sysfs_root": str(folder / "sys"), "speedup": how.speedup}
    else:
        seen = {"kind": "simulated", "preset": how.preset, "ambient_c": how.ambient, "speedup": how.speedup}
    settings = {"board": seen, "policy": {"governor": governor}, "engine": {"threads": 1}}
    with running(folder, **settings) as daemon, Client(typed.read({"port": daemon.port}, Mqtt), [f"{BASE}/#"]) as client:
        load = Load(client)
        if not how.emulator:
            return Run(rows_of(load, how), load.telemetry), None
        if cores is None:
            load.carry_on(5.0)
            before, began = _used(daemon), time.monotonic()
            load.carry_on(_MEASURE_S)
            cores = (_used(daemon) - before) / (time.monotonic() - began)
        with board(how.emulator, folder, daemon.process.pid, cores, how) as emulated:
            while emulated.poll() is None:
                load.carry_on(0.5)
    with (folder / "board.csv").open() as log:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(log)]
    return Run(rows, load.telemetry), cores


def rows_of(load: Load, how: argparse.Namespace) -> list[dict[str, float]]:
    """The daemon's own simulated board under load, as its telemetry tells of it."""
    rows: list[dict[str, float]] = []
    began = time.monotonic()
    while (t := (time.monotonic() - began) * how.speedup) < how.seconds:
        load.carry_on(0.2)
        told = load.telemetry[-1]["governor"] if load.telemetry else {}
        if told.get("temp_c") is not None:
            rows.append({"t": t, "t_die": told["temp_c"], "throttle_events": told["throttle_events"]})
    return rows


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
    """Temperature, and power where it was told, both runs over the board's time."""
    image = np.full((560, 900, 3), PAPER, np.uint8)
    text(image, f"{how.preset} at {how.ambient:g} C, the same jobs: ", (60, 26), 0.5, INK, 1)
    text(image, "without the governor", (400, 26), 0.5, WITHOUT, 1)
    text(image, "with it", (590, 26), 0.5, WITH, 1)
    limit = next((t["governor"]["limit_c"] for t in governed.telemetry if t.get("governor", {}).get("limit_c")), None)
    trip = next((t["governor"]["throttle_c"] for t in governed.telemetry if t.get("governor", {}).get("throttle_c")), None)
    marks = {name: value for name, value in (("limit", limit), ("throttles", trip)) if value is not None}
    _panel(image, (50, 300), "C", "t_die", (without, governed), marks)
    if "power" in governed.rows[0]:
        _panel(image, (340, 520), "W", "power", (without, governed), {})
    else:
        image = image[:350]
    text(image, "s of the board's time", (400, len(image) - 8), 0.45, GREY, 1)
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
        values = [row[name] for row in run.rows]
        if name == "power":  # it follows each step of the network: its mean over some seconds says more
            values = [float(np.mean(values[max(0, i - _SMOOTH) : i + _SMOOTH + 1])) for i in range(len(values))]
        line = np.array([at(row["t"], value) for row, value in zip(run.rows, values)], np.int32)
        cv2.polylines(image, [line], False, colour, 1, cv2.LINE_AA)


def main() -> int:
    """0 where the governed board never throttled and the other one did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("emulator", type=Path, nargs="?", help="a program that plays a board; default: the daemon's own")
    parser.add_argument("--preset", help="the board: rpi5-passive of the emulator, pi5 of our own")
    parser.add_argument("--ambient", type=float, help="C: 30 for the emulator, 46 for our own")
    parser.add_argument("--start-c", type=float, help="of an emulator, at the beginning; default: the board's idle one")
    parser.add_argument("--seconds", type=float, default=900.0, help="of the board's time")
    parser.add_argument("--speedup", type=float, default=5.0, help="the board's seconds per second")
    parser.add_argument("--png", type=Path, help="a picture of both runs")
    how = parser.parse_args()
    how.preset = how.preset or ("rpi5-passive" if how.emulator else "pi5")
    how.ambient = how.ambient if how.ambient is not None else 30.0 if how.emulator else 46.0
    with tempfile.TemporaryDirectory(prefix="denoised-live-") as path:
        without, cores = play(Path(path) / "off", "off", how, None)
        print(f"without {without.words()}", flush=True)
        governed, _ = play(Path(path) / "on", "on", how, cores)
        print(f"with    {governed.words()}")
    if how.png:
        draw(without, governed, how.png, how)
    return 0 if governed.throttle_events == 0 and without.throttle_events > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
