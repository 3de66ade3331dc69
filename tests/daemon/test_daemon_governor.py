"""The governor in the real daemon, with real networks and a real broker, on a board that heats up by physics of its own."""

from __future__ import annotations

import subprocess
import sys
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
    picture = tmp_path / "live.png"
    command = [sys.executable, "governor_live.py", str(EMULATOR), "--png", str(picture)]
    command += ["--start-c", "68", "--seconds", "240", "--speedup", "8"]
    done = subprocess.run(command, cwd=HOUSE / "bench", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cv2.imread(str(picture)) is not None
