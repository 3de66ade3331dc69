"""The command: its verbs, its exit status, and that a verb is not loaded before it is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from denoised import __version__
from denoised.daemon.cli import main as command
from denoised.daemon.cli.main import VERBS, main

DENOISED = [sys.executable, "-c", "import sys; from denoised.daemon.cli.main import main; sys.exit(main())"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    assert f"denoised {verb}" in capsys.readouterr().out


def test_help_lists_every_verb_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(f" {verb} {help_} " in told for verb, (_, help_) in VERBS.items())


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert (done.value.code, capsys.readouterr().out) == (0, f"denoised {__version__}\n")


@pytest.mark.parametrize("argv", [[], ["chek"], ["check"], ["schema", "--nonsense"]])
def test_bad_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(argv)
    assert done.value.code == 2
    assert "usage: denoised" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "schema"])
def test_verbs_that_need_no_bus_load_no_bus(verb: str) -> None:
    heavy = "paho", "sqlite3", "numpy", "cv2", "onnxruntime"
    code = f"import sys, denoised.daemon.cli.main as m, denoised.daemon.cli.{verb}; print(sys.modules.keys() & {set(heavy)})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("denoised.daemon.cli.schema"), "main", interrupted)
    assert command.main(["schema"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    with subprocess.Popen([*DENOISED, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
