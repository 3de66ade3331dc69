from __future__ import annotations

import dataclasses
import json

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.board.board import find_board
from denoised.daemon.calibration import Calibration, Fingerprint, Method, fingerprint, load, path_of, store
from denoised.daemon.core.frontier import Quality, Speed, frontier, points
from denoised.engines.bundle import SHIPPED, read_bundle

HERE = Fingerprint(
    "Raspberry Pi 5 Model B Rev 1.0", "aarch64", 4, 7936, "onnxruntime", "onnxruntime 1.32.0", "ab" * 32, 2400, None
)
QUALITIES = (Quality("fp32", "ddim", 8, 0.1, 1.0), Quality("int8", "ddim", 8, 0.2, 1.0))
SPEEDS = (Speed("fp32", "ddim", 8, 1, 40.0, 5.0), Speed("int8", "ddim", 8, 1, 20.0, 5.0))
WHOLE = Calibration(
    2,
    "surface-defects",
    "0.1.0",
    HERE,
    Method("t", "e", "q"),
    3.0,
    True,
    QUALITIES,
    SPEEDS,
    frontier(points(QUALITIES, SPEEDS)),
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "calibration" / "surface-defects-0.1.0.json"
    store(path, WHOLE)
    return path


def refusal(path, here=HERE):
    """Why the calibration is not taken, in words."""
    found, why = load(path, here)
    assert found is None and why is not None
    return why


def test_what_is_stored_is_what_is_loaded(path):
    assert load(path, HERE) == (WHOLE, None)
    assert len(WHOLE.frontier) == 2
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_no_file_is_no_calibration_and_no_fault(tmp_path):
    assert load(tmp_path / "none.json", HERE) == (None, None)


def test_a_file_that_is_cut_short_anywhere_counts_as_absent_and_says_so(path):
    whole = path.read_bytes()
    for length in [*range(0, len(whole) - 2, 97), len(whole) - 3]:
        path.write_bytes(whole[:length])
        why = refusal(path)
        assert str(path) in why and "damaged" in why and "denoised calibrate" in why


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"frontier": [{}]},
        {"speeds": [{**dataclasses.asdict(SPEEDS[0]), "step_ms": -1}]},
        {"more": 1},
        {"version": 3},
    ],
)
def test_a_file_of_another_form_counts_as_absent_and_says_where(path, change):
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert next(iter(change)) in refusal(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"null", b"NaN", b""])
def test_rubbish_counts_as_absent(path, data):
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("board", "Raspberry Pi 4"),
        ("cores", 2),
        ("memory_mb", 3840),
        ("runtime", "onnxruntime 1.20.1"),
        ("model_sha256", "cd" * 32),
        ("clock_mhz", 1500),
        ("mode", "15W"),
    ],
)
def test_a_calibration_of_another_board_runtime_or_model_is_stale_and_says_what_changed(path, field, value):
    why = refusal(path, dataclasses.replace(HERE, **{field: value}))
    assert f"{field} was {getattr(HERE, field)!r}, is {value!r}" in why


def test_a_store_that_fails_leaves_what_was_there(path, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("denoised.daemon.durable.os.fsync", broken)
    with pytest.raises(OSError, match="no space"):
        store(path, dataclasses.replace(WHOLE, complete=False))
    monkeypatch.undo()
    assert load(path, HERE) == (WHOLE, None)


def test_the_fingerprint_tells_model_board_and_runtime(tmp_path):
    (tmp_path / "firmware/devicetree/base").mkdir(parents=True)
    (tmp_path / "firmware/devicetree/base/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    policy = tmp_path / "devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    (policy / "cpuinfo_min_freq").write_text("115200\n")
    (policy / "cpuinfo_max_freq").write_text("1728000\n")
    config = typed.read({"board": {"sysfs_root": str(tmp_path)}, "state_dir": "/var/lib/d"}, Config)
    a, b = (read_bundle(SHIPPED / name) for name in ("surface-defects", "plant-imputer"))
    board = find_board(config.board).traits.name
    here = fingerprint(config, a, board, "15W")
    assert here.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert here.runtime.startswith("onnxruntime ")
    assert (here.clock_mhz, here.mode) == (1728, "15W")
    assert here.cores > 0 and here.memory_mb > 0
    assert here.differences(fingerprint(config, a, board, "15W")) == ""
    assert here.differences(fingerprint(config, b, board, "15W")).startswith("model_sha256 was")
    assert str(path_of(config, b)) == f"/var/lib/d/calibration/plant-imputer-{b.manifest.version}.json"
