"""The systemd unit, judged by systemd itself."""

from __future__ import annotations

import os
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


@needs_systemd
def test_systemd_reads_the_drop_in_of_the_clock_cap(staged: Path) -> None:
    dropins = staged.parent / f"{UNIT.name}.d"
    dropins.mkdir()
    shutil.copy(UNIT.parent / "denoised-clock-dropin.conf", dropins / "clock.conf")
    verdict = analyze("verify", str(staged))
    ours = [line for line in (verdict.stdout + verdict.stderr).splitlines() if UNIT.name in line or "clock.conf" in line]
    assert ours == []
    assert verdict.returncode == 0


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None or os.geteuid() != 0, reason="needs systemd-tmpfiles, as root")
def test_the_clock_rule_gives_the_limits_to_the_group_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": 0o664,
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": 0o644,
        "sys/devices/17000000.gpu/devfreq/17000000.gpu/max_freq": 0o664,
        "sys/devices/17000000.gpu/devfreq/17000000.gpu/min_freq": 0o644,
        "etc/group": 0o644,
        "etc/passwd": 0o644,
    }
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
        (tmp_path / name).chmod(0o644)
    (tmp_path / "etc/group").write_text("root:x:0:\ndenoised:x:4242:\n")
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "sys/class/devfreq").mkdir(parents=True)
    (tmp_path / "sys/class/devfreq/17000000.gpu").symlink_to("../../devices/17000000.gpu/devfreq/17000000.gpu")
    rule = str(UNIT.parent / "denoised-clock.conf")
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={tmp_path}", rule], check=True, timeout=60)
    for name, mode in files.items():
        found = (tmp_path / name).stat()
        assert (found.st_mode & 0o777, found.st_gid) == (mode, 4242 if mode == 0o664 else 0), name


def test_a_config_that_cannot_be_used_is_not_tried_again() -> None:
    """`denoised run` exits 2 on a bad configuration (docs: commands); systemd must know that number."""
    assert "RestartPreventExitStatus=2\n" in UNIT.read_text()


def test_the_unit_never_waits_for_the_network() -> None:
    settings = [line for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    assert not any("network-online.target" in line for line in settings)
