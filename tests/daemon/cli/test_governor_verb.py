"""`denoised governor simulate`: what it prints, draws and refuses."""

from __future__ import annotations

import json

import cv2
import pytest
from denoised.daemon.cli.governor import Usage, example, weather, work
from denoised.daemon.cli.main import main
from denoised.daemon.rehearsal import Work

PI = ["governor", "simulate", "--board", "pi5", "--hours", "0.2"]


def test_the_board_throttles_without_the_governor_and_never_with_it(capsys, tmp_path):
    picture = tmp_path / "pi5.png"
    jobs = ["--jobs", "bulk:floor=0.94", "realtime:every=10s,due=3s,floor=0.94"]
    assert main([*PI, "--ambient", "35", *jobs, "--out", str(picture), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["limit_c"] == 78.0
    assert "not measured" in told["operating_points"]
    assert (told["governed"]["throttle_events"], told["governed"]["missed"]) == (0, 0)
    assert told["without"]["throttle_events"] > 0
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape[1] == 1100


def test_the_table_stands_both_side_by_side(capsys):
    assert main([*PI, "--ambient", "20:25", "--no-clock", "--objective", "energy", "--jobs", "bulk:samples=50,due=10m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "without" in lines[2]
    assert any(line.split() == ["samples", "50", "50"] for line in lines)


def test_a_cabinet_that_is_too_hot_is_said_so_by_the_exit_status(capsys):
    assert main([*PI, "--ambient", "70"]) == 1
    assert "throttle events" in capsys.readouterr().out


def test_a_weather_from_a_file_is_joined_by_lines(tmp_path):
    file = tmp_path / "day.csv"
    file.write_text("seconds,C\n0,20\n3600,30\n")
    at = weather(str(file), 1.0)
    assert [at(t) for t in (-1, 0, 1800, 3600, 9999)] == [20, 20, 25, 30, 30]
    assert [weather("20:40", 1.0)(t) for t in (0, 1800, 3600)] == [20, 30, 40]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("bulk:samples=2400,due=1h,floor=0.9", Work(2400.0, None, 3600.0, 0.9)),
        ("realtime:every=10s,due=3", Work(1.0, 10.0, 3.0, 0.0)),
        ("realtime:every=1m,due=2s,samples=4", Work(4.0, 60.0, 2.0, 0.0)),
    ],
)
def test_jobs_are_read(spec, wanted):
    assert work(spec) == wanted


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("blk", "expected bulk or realtime"),
        ("bulk:sample=3", "did you mean 'samples'"),
        ("bulk:samples=many", "expected a number"),
        ("bulk:due=1h", "samples=N"),
        ("realtime:every=3s", "due="),
        ("bulk:floor=2", "expected 0 to 1"),
        ("realtime:every=0,due=1", "more than 0"),
    ],
)
def test_jobs_that_make_no_sense_are_refused_in_words(spec, said):
    with pytest.raises(Usage, match=said):
        work(spec)


@pytest.mark.parametrize("ambient", ["hot", "1:2:3", "500", "nan"])
def test_a_weather_that_makes_no_sense_is_refused(ambient, capsys):
    assert main([*PI, "--ambient", ambient]) == 2
    assert "--ambient" in capsys.readouterr().err


def test_a_calibration_that_cannot_be_read_is_refused(tmp_path, capsys):
    file = tmp_path / "x.json"
    assert main([*PI, "--calibration", str(file)]) == 2
    file.write_text("{}")
    assert main([*PI, "--calibration", str(file)]) == 2
    assert str(file) in capsys.readouterr().err


def test_the_example_has_points_that_differ():
    menu = example(5.0)
    assert len(set(menu.options)) == len(menu.options) == len(set(menu.names))
