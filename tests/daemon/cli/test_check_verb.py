"""`denoised check` and `denoised schema` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import denoised.config
import pytest
from denoised.config.schema import schema
from denoised.daemon.cli.main import main

EXAMPLE = Path(denoised.config.__file__).with_name("denoised.yaml")


def test_a_good_configuration_exits_with_0_and_names_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10-bus.yaml").write_text("mqtt: {host: broker}")
    (tmp_path / "denoised.yaml").write_text("{}")
    assert main(["check", str(tmp_path / "denoised.yaml")]) == 0
    assert capsys.readouterr().out == f"ok: {tmp_path}/denoised.yaml, {tmp_path}/conf.d/10-bus.yaml\n"


def test_a_bad_one_exits_with_2_and_tells_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "mqtt:\n"
        "  prot: 1883\n"
        "cameras:\n"
        "  line1: {source: /dev/video0}\n"
        "triggers:\n"
        "  photo:\n"
        "    topic: plant/line1/seen\n"
        "    kind: defect-synthesis\n"
        "    params: {image: {camera: lien1}, count: 2}\n"
        "  other: {topic: a, kind: defect-synthesis, params: {image: {path: a.png}, cuont: $.n}}\n"
        "  third: {topic: a, kind: defect-sinthesis}\n"
    )
    assert main(["check", str(path)]) == 2
    out = capsys.readouterr()
    assert [line for line in out.out.splitlines() if line.startswith(str(path))] == [
        f"{path}:2:3: error: unknown field 'prot', did you mean 'port'?",
        f"{path}:9:30: error: no camera 'lien1' under 'cameras:', did you mean 'line1'?",
        f"{path}:10:76: error: unknown field 'cuont', did you mean 'count'?",
        f"{path}:11:27: error: no job kind 'defect-sinthesis' is installed, did you mean 'defect-synthesis'?",
    ]
    assert out.err == "4 errors\n"


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("mqtt: {port: 0}")
    assert main(["check", str(path), "--json"]) == 2
    message = "expected a whole number >= 1, found 0"
    error = {"file": str(path), "line": 1, "column": 14, "message": message, "excerpt": "mqtt: {port: 0}"}
    assert json.loads(capsys.readouterr().out) == {"ok": False, "files": [str(path)], "errors": [error]}
    assert main(["check", str(EXAMPLE), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "files": [str(EXAMPLE)], "errors": []}


def test_a_missing_file_is_an_error_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().out == f"{tmp_path}/none.yaml:1:1: error: cannot read this file: No such file or directory\n"


def test_checking_a_read_only_folder_writes_nothing(tmp_path: Path) -> None:
    """A configuration on a read-only root file system is the normal case."""
    path = tmp_path / "x.yaml"
    path.write_text("mqtt: {port: 1884}\n")
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    before = [(p.name, p.stat().st_mtime_ns) for p in (tmp_path, *tmp_path.iterdir())]
    try:
        assert main(["check", str(path)]) == 0
        assert [(p.name, p.stat().st_mtime_ns) for p in (tmp_path, *tmp_path.iterdir())] == before
    finally:
        tmp_path.chmod(0o755)


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
