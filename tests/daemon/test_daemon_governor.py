"""The governor in the real daemon, with real networks and a real broker, on a board that heats up by physics of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from denoised.demo.broker import find_mosquitto

HOUSE = Path(__file__).resolve().parents[2]
EMULATOR = HOUSE.parent / "shared" / "tools" / "thermal_board.py"


@pytest.mark.skipif(not EMULATOR.exists(), reason=f"the board's emulator is not here: {EMULATOR}")
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: sudo apt-get install mosquitto")
def test_the_load_that_makes_a_board_throttle_never_does_with_the_governor(tmp_path):
    """Exit status 0 of the bench: throttle events without it, none with it. How fast anything was is not asked."""
    if os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1):  # the emulator's sped-up seconds would pass between two readings
        pytest.skip(
            f"this machine is busy (load {os.getloadavg()[0]:.1f}): the emulated board would run away from its readings"
        )
    picture = tmp_path / "live.png"
    command = [sys.executable, "governor_live.py", str(EMULATOR), "--png", str(picture)]
    command += ["--start-c", "68", "--seconds", "160", "--speedup", "8"]
    done = subprocess.run(command, cwd=HOUSE / "bench", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cv2.imread(str(picture)) is not None


HOT = {"kind": "simulated", "preset": "pi5", "ambient_c": 46, "speedup": 20}
"""A Pi in a cabinet so hot that an eighth of its power makes it throttle: what this machine has left for the daemon does."""


def under_load(daemon, enough):
    """Telemetry of a daemon that always has jobs, until it is enough."""
    sent, until = 0, time.monotonic() + 300
    while not enough(daemon.all("telemetry")):
        waiting = sent - len({name for name, _ in daemon.seen if name.endswith("/result")})
        for _ in range(3 - waiting):
            sent += 1
            daemon.submit("toy", {"id": f"load-{sent}", "params": {"count": 100}})
        daemon.look(0.2)
        assert time.monotonic() < until, daemon.all("telemetry")[-3:]
    return [told["governor"] for told in daemon.all("telemetry")]


def test_a_simulated_board_throttles_without_the_governor_and_never_with_it(make_daemon):
    slow = make_daemon(board=HOT, policy={"governor": "off"}, engine={"threads": 1})
    told = under_load(slow, lambda seen: seen and seen[-1]["governor"]["throttle_events"])
    assert max(t["temp_c"] for t in told) >= 79.0
    seconds = len(told)
    assert slow.stop() == 0
    governed = make_daemon(board=HOT, engine={"threads": 1})
    told = under_load(governed, lambda seen: len(seen) >= max(60, 2 * seconds))
    assert [t["throttle_events"] for t in told] == [0] * len(told)
    assert max(t["temp_c"] for t in told) < 80.0
    assert governed.result("load-1")["state"] == "done"
    assert governed.stop() == 0
