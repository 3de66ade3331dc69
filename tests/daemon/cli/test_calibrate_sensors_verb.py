"""`denoised calibrate-sensors`: from a CSV file to a stored group, and every way in which the file can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from denoised.config.load import load as load_config
from denoised.daemon.cli.main import main
from denoised.daemon.models import find_models, site_of
from denoised.demo.plant import TAGS, Plant
from denoised.plugins.sensor_imputation.stored import find, load


@pytest.fixture
def gateway(tmp_path):
    tags = {tag: {"topic": f"plant/{tag}"} for tag in TAGS[:3]}
    plain = {"state_dir": str(tmp_path / "state"), "sensors": {"press": {"period": "2s", "tags": tags}}}
    (tmp_path / "denoised.yaml").write_text(yaml.safe_dump(plain))
    return tmp_path


def recording(path, rows=240, seed=1, separator=",", header=("time", *TAGS)):
    """A press with times as text in the first column and every eleventh cell empty."""
    lines, cell = [separator.join(header)], 0
    for i, row in enumerate(Plant(seed).rows(rows)):
        cells = [f"2026-11-22T10:{i // 60 % 60:02}:{i % 60:02}Z"]
        for value in row.truth:
            cell += 1
            cells.append("" if cell % 11 == 0 else repr(value))
        lines.append(separator.join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def calibrate(gateway, *more):
    return main(["calibrate-sensors", "--config", str(gateway / "denoised.yaml"), *map(str, more)])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_every_column_of_numbers_is_learnt_under_the_name_of_the_file(gateway, capsys, separator):
    csv = recording(gateway / "press-7.csv", separator=separator)
    assert calibrate(gateway, "--csv", csv, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tags"] == list(TAGS)
    assert told["rows"] == 240 and told["missing"] == pytest.approx(1 / 11, abs=0.01)
    stored, why = load(gateway / "state" / "sensors" / "press-7.npz")
    assert why is None and stored is not None and stored.tags == tuple(TAGS)


def test_a_group_is_learnt_with_its_tags_and_period_and_found_by_its_jobs(gateway):
    assert calibrate(gateway, "--csv", recording(gateway / "x.csv"), "--group", "press") == 0
    config = load_config(gateway / "denoised.yaml")
    site = site_of(config, find_models(config)[0])
    sha256 = site.model("sensor-imputation", None).sha256
    found = find(site.calibrations, TAGS[:3], 2000, sha256)
    assert found is not None and found.name == "press"
    assert find(site.calibrations, TAGS[:3], 1000, sha256) is None
    part, means = found.parts[0], np.mean([r.truth for r in Plant(1).rows(240)], 0)
    assert part.calibration.mean == pytest.approx(means[part.columns], rel=0.05)


def test_a_second_run_refreshes_and_keep_0_starts_afresh(gateway, capsys):
    csv = recording(gateway / "x.csv")
    told = []
    for more in ((), (), ("--keep", "0")):
        assert calibrate(gateway, "--csv", csv, "--json", *more) == 0
        told.append(json.loads(capsys.readouterr().out)["refreshed"])
    assert told == [False, True, False]


def test_a_damaged_store_is_said_and_replaced(gateway, capsys):
    path = gateway / "state" / "sensors" / "x.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no archive")
    assert calibrate(gateway, "--csv", recording(gateway / "x.csv")) == 0
    assert "x.npz: damaged" in capsys.readouterr().err
    assert load(path)[0] is not None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a,b\n" + "1,2\n" * 60 + "1,two\n", ":62: column 'b': expected a number or nothing, found 'two'"),
        ("a,b\n" + "1,2\n" * 60 + "1\n", ":62: expected 2 cells as in the header, found 1"),
        ("a,a\n" + "1,2\n" * 60, ":1: column 'a' stands here twice"),
        ("a,b\n1,2\n", "a history of 1 rows is too short; expected at least 48"),
        ("time,state\n" + "10:00,open\n" * 60, "no column holds numbers; found time, state"),
        ("", "empty; expected a header of tag names"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_place(gateway, capsys, text, found):
    (gateway / "x.csv").write_text(text)
    assert calibrate(gateway, "--csv", gateway / "x.csv") == 1
    err = capsys.readouterr().err
    assert found in err and err.startswith("denoised calibrate-sensors: ")
    assert not (gateway / "state" / "sensors").exists()


def test_what_is_missing_or_misspelt_is_named(gateway, capsys):
    csv = recording(gateway / "x.csv", header=("time", "presure", *TAGS[1:]))
    assert calibrate(gateway, "--csv", csv, "--group", "press") == 1
    assert f"no column '{TAGS[0]}'" in capsys.readouterr().err
    assert calibrate(gateway, "--csv", csv, "--group", "pres") == 2
    assert "no group 'pres' under sensors, did you mean 'press'?" in capsys.readouterr().err
    assert calibrate(gateway, "--csv", gateway / "none.csv") == 1
    assert "none.csv: No such file" in capsys.readouterr().err
    assert calibrate(gateway, "--csv", csv, "--keep", "2") == 2
    assert "--keep: expected 0 to 1, found 2" in capsys.readouterr().err
