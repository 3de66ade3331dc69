"""setup.sh on machines that lack something: it says what, what that means and what to type."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
TOOLS = ["bash", "cat", "cksum", "dirname", "env", "grep", "head", "id", "ln", "mkdir", "rm"]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout, and in bin/ a machine without apt-get, sudo, a broker or a compiler."""
    for name in ("setup.sh", "setup.py", "__init__.py"):
        shutil.copy(HOUSE / name, tmp_path / name)
    script = (HOUSE / "setup.sh").read_text()
    assert "/usr/sbin/mosquitto" in script
    (tmp_path / "setup.sh").write_text(script.replace("/usr/sbin/mosquitto", str(tmp_path / "no-broker")))
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def python(bare: Path, body: str) -> None:
    """Puts a `python3` there that does as `body` says (a shell script; "$2" is the code it is asked to run)."""
    script = bare / "bin" / "python3"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)


def run(bare: Path, what: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(bare / "bin")}
    return subprocess.run([str(bare / "setup.sh"), what], env=env, capture_output=True, text=True, timeout=60)


def test_a_machine_without_python_is_told_how_to_get_it(bare: Path) -> None:
    told = run(bare, "demo")
    assert told.returncode == 1
    assert "no 'python3' here" in told.stderr and "sudo apt-get install python3" in told.stderr


def test_a_python_that_is_too_old_is_named_and_another_can_be_chosen(bare: Path) -> None:
    python(bare, 'case "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac')
    told = run(bare, "test")
    assert told.returncode == 1
    assert "Python 3.9; denoised needs 3.10" in told.stderr and "make test PYTHON=" in told.stderr
    assert not (bare / ".venv").exists()


def test_a_python_without_ensurepip_is_told_the_debian_package(bare: Path) -> None:
    python(bare, f'case "$2" in *ensurepip*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac')
    told = run(bare, "demo")
    assert told.returncode == 1
    assert "ensurepip is missing" in told.stderr and f"sudo apt-get install python{VERSION}-venv" in told.stderr
    assert not (bare / ".venv").exists()


def test_a_missing_broker_is_said_and_setting_up_goes_on(bare: Path) -> None:
    # The interpreter stands in for `venv` and pip as well: a folder with itself in it, and success.
    python(
        bare,
        f"""
case "$*" in
"-m venv .venv") mkdir -p .venv/bin && ln -s "$0" .venv/bin/python ;;
"-m pip "*) echo "$@" >>pip-calls ;;
*) exec {sys.executable} "$@" ;;
esac""",
    )
    told = run(bare, "demo")
    assert told.returncode == 0, told.stderr
    assert "the broker mosquitto is missing" in told.stdout and "sudo apt-get install mosquitto" in told.stdout
    assert "amqtt" in told.stdout
    assert "-e .[onnx,demo]" in (bare / "pip-calls").read_text()

    # Run again it has nothing to do and nothing to say.
    again = run(bare, "demo")
    assert (again.returncode, again.stdout) == (0, "")
    assert len((bare / "pip-calls").read_text().splitlines()) == 1

    # A change of what setup.py asks for, or a move of the checkout, begins again.
    (bare / "setup.py").write_text((bare / "setup.py").read_text() + "\n")
    assert "installing denoised" in run(bare, "demo").stdout
