"""The systemd unit, judged by systemd itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "denoised.service"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """The unit beside an executable that stands for the installed command: `verify` wants one to exist."""
    command = tmp_path / "denoised"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    text = UNIT.read_text()
    assert "ExecStart=/usr/bin/denoised " in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("ExecStart=/usr/bin/denoised", f"ExecStart={command}"))
    return unit


def analyze(*args: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"}
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, env=env, timeout=60)


@needs_systemd
def test_systemd_reads_the_unit_without_a_complaint(staged: Path) -> None:
    verdict = analyze("verify", str(staged))
    # Other units of the machine, which verify also loads, are not ours to judge.
    ours = [line for line in (verdict.stdout + verdict.stderr).splitlines() if UNIT.name in line]
    assert ours == []
    assert verdict.returncode == 0


@needs_systemd
def test_the_unit_is_exposed_no_more_than_2_of_10(staged: Path) -> None:
    verdict = analyze("security", "--offline=true", "--threshold=20", str(staged))
    if "unrecognized option" in verdict.stderr:
        pytest.skip("this systemd (before 250) cannot judge a unit file offline")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_a_config_that_cannot_be_used_is_not_tried_again() -> None:
    """`denoised run` exits 2 on a bad configuration (docs: commands); systemd must know that number."""
    assert "RestartPreventExitStatus=2\n" in UNIT.read_text()


def test_the_unit_never_waits_for_the_network() -> None:
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not any("network-online.target" in line for line in settings)
