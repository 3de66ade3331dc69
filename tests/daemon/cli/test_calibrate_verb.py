"""`denoised calibrate` and `models bench`: the commands on a small bundle, and once for real with Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import Any

import cv2
import pytest
import yaml
from denoised.config.load import load as load_config
from denoised.daemon import measure
from denoised.daemon.board.board import find_board
from denoised.daemon.calibration import fingerprint, load
from denoised.daemon.cli.main import main
from denoised.engines.bundle import SHIPPED, read_bundle, write_sums
from denoised.plugins.sensor_imputation.kind import SensorImputation

PATIENCE = 60.0


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    """A configuration whose only model is the imputer under another name, and measurements that are quick and rough."""
    models = tmp_path / "models" / "tiny"
    models.mkdir(parents=True)
    for file in ("encoder.onnx", "denoiser.onnx"):
        (models / file).write_bytes((SHIPPED / "plant-imputer" / file).read_bytes())
    plain = yaml.safe_load((SHIPPED / "plant-imputer" / "model.yaml").read_text())
    files = plain["variants"]["fp32"]
    point = {"sampler": "gaussian_exact", "batch": 2}
    plain |= {
        "name": "tiny",
        "version": "0.1.0",
        "variants": {"fp32": files, "other": files},
        "operating_points": [{**point, "variant": v, "steps": s} for v in ("fp32", "other") for s in (1, 2)],
    }
    (models / "model.yaml").write_text(yaml.safe_dump(plain))
    write_sums(models)
    monkeypatch.setattr("denoised.daemon.models.SHIPPED", tmp_path / "models")
    values = [[None if (i + k) % 5 == 0 else float(i * k % 7) for k in range(2)] for i in range(72)]
    small = {"tags": ["a", "b"], "values": values, "samples": 4}
    monkeypatch.setattr(SensorImputation, "self_test", lambda self, bundle: small)
    monkeypatch.setattr(measure, "REFERENCE_STEPS", 6)
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    config = tmp_path / "denoised.yaml"
    config.write_text(yaml.safe_dump({"state_dir": str(tmp_path / "state"), "engine": {"threads": 1}}))
    return config


@pytest.fixture
def asked(monkeypatch):
    """What is measured, in turn; an entry in `stop` interrupts before that many."""
    seen: list[tuple[Any, ...]] = []
    stop: list[int] = []
    for name in ("quality", "speed"):
        real = getattr(measure.Measurer, name)

        def watched(self, *key, real=real):
            if len(seen) in stop:
                raise KeyboardInterrupt
            seen.append(key)
            return real(self, *key)

        monkeypatch.setattr(measure.Measurer, name, watched)
    return seen, stop


def calibration(config):
    return config.parent / "state" / "calibration" / "tiny-0.1.0.json"


def loaded(config):
    """The calibration as a reader gets it."""
    settings = load_config(config)
    board = find_board(settings.board)
    mode = board.read(time.monotonic()).mode
    here = fingerprint(settings, read_bundle(config.parent / "models" / "tiny"), board.traits.name, mode)
    found, why = load(calibration(config), here)
    assert found is not None, why
    return found


def calibrate(config, *more):
    return main(["calibrate", "--config", str(config), *more])


EVERYTHING = 2 * 2 + 2 * 2
"""Variants times steps, variants times batches, on one thread."""


def test_it_measures_everything_once_and_leaves_the_frontier_and_its_picture(gateway, asked, capsys):
    assert calibrate(gateway) == 0
    out = capsys.readouterr().out
    assert len(asked[0]) == len(set(asked[0])) == EVERYTHING
    path = calibration(gateway)
    found = loaded(gateway)
    assert found.complete
    assert found.frontier and {p.steps for p in found.frontier} <= {1, 2}
    assert "tiny 0.1.0" in out and "estimated" in out and str(path) in out
    picture = cv2.imread(str(path.with_suffix(".png")))
    assert picture is not None and picture.shape == (700, 1100, 3)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".png"]


def test_interrupted_anywhere_it_goes_on_where_it_was(gateway, asked, capsys):
    seen, stop = asked
    stop[:] = [3, 6]
    assert calibrate(gateway) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(seen) == 3
    stop.pop(0)
    assert calibrate(gateway) == 130
    assert len(seen) == 6
    assert loaded(gateway).complete is False  # serves until there is more
    stop.pop(0)
    assert calibrate(gateway) == 0
    assert len(seen) == len(set(seen)) == EVERYTHING
    assert loaded(gateway).complete


def test_a_finished_calibration_stays_in_use_until_the_next_is_finished(gateway, asked):
    seen, stop = asked
    assert calibrate(gateway) == 0
    before = calibration(gateway).read_bytes()
    stop.append(EVERYTHING + 7)
    assert calibrate(gateway) == 130
    assert len(seen) == EVERYTHING + 7  # a new one, not nothing to do
    assert calibration(gateway).read_bytes() == before
    stop.clear()
    assert calibrate(gateway) == 0
    assert not calibration(gateway).with_suffix(".partial").exists()


def test_what_another_board_left_unfinished_is_not_taken_up(gateway, asked):
    seen, stop = asked
    stop.append(3)
    assert calibrate(gateway) == 130
    partial = calibration(gateway).with_suffix(".partial")
    plain = json.loads(partial.read_text())
    plain["fingerprint"]["cores"] += 1
    partial.write_text(json.dumps(plain))
    stop.clear()
    assert calibrate(gateway) == 0
    assert len(seen) == 3 + EVERYTHING


def test_when_the_time_is_up_it_says_what_to_do_and_fails_only_where_there_is_no_frontier(gateway, asked, capsys):
    assert calibrate(gateway, "--minutes", "1e-9") == 1
    assert "not all was measured" in capsys.readouterr().err
    assert asked[0] == []
    assert calibrate(gateway) == 0


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_must_be_positive(gateway, minutes, capsys):
    assert calibrate(gateway, f"--minutes={minutes}") == 2
    assert "expected more than 0" in capsys.readouterr().err


def test_json_is_one_document(gateway, capsys):
    assert calibrate(gateway, "--json") == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["model"] == "tiny" and model["complete"]
    assert model["frontier"][0].keys() >= {
        "variant",
        "sampler",
        "steps",
        "batch",
        "threads",
        "sample_ms",
        "energy_j",
        "distance",
    }
    assert model["method"]["energy"].startswith("estimated")


def test_a_damaged_model_is_named_and_fails(gateway, capsys):
    (gateway.parent / "models" / "tiny" / "denoiser.onnx").write_bytes(b"weights")
    assert calibrate(gateway) == 1
    assert "denoiser.onnx: damaged" in capsys.readouterr().err


def test_a_state_folder_that_cannot_be_written_is_named_before_anything_is_measured(gateway, asked, capsys):
    (gateway.parent / "state").write_text("a file")
    assert calibrate(gateway) == 1
    assert str(gateway.parent / "state") in capsys.readouterr().err
    assert asked[0] == []


def test_bench_shows_every_shipped_point_beside_float32(gateway, capsys):
    assert main(["models", "bench", "tiny", "--config", str(gateway)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny 0.1.0; energy estimated")
    assert [line.split()[0] for line in lines[2:]] == ["fp32", "fp32", "other", "other"]
    assert lines[2].split()[-2:] == ["1.00", "1.00"]


def test_bench_as_json(gateway, capsys):
    assert main(["models", "bench", "--json", "--config", str(gateway)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    points = found["models"][0]["points"]
    assert [p["distance"] for p in points[:2]] == [p["distance"] for p in points[2:]]  # the same files behind both variants
    assert all(p["sample_ms_of_fp32"] > 0 for p in points)


@pytest.mark.parametrize("what", ["list", "verify", "bench"])
def test_a_model_that_is_not_there_is_bad_usage(gateway, what, capsys):
    assert main(["models", what, "tinny", "--config", str(gateway)]) == 2
    assert "no model 'tinny', did you mean 'tiny'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["calibrate", "models_bench"])
def test_numpy_is_not_there_before_its_threads_are_set(verb):
    code = f"import sys, denoised.daemon.cli.{verb}; from denoised.plugins.kind import load_kinds; load_kinds()"
    code += "; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_ctrl_c_loses_nothing_of_what_was_measured(tmp_path):
    config = tmp_path / "denoised.yaml"
    config.write_text(yaml.safe_dump({"state_dir": str(tmp_path / "state")}))
    command = [sys.executable, "-m", "denoised", "calibrate", "--config", str(config)]
    folder = tmp_path / "state" / "calibration"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + PATIENCE
        while not any('"distance"' in p.read_text() for p in folder.glob("*.partial")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; what was measured is kept" in err and "Traceback" not in err
    (partial,) = folder.glob("*.partial")
    assert json.loads(partial.read_text())["qualities"]
