"""A board that goes off when load begins is known for it on the next boot."""

from __future__ import annotations

import json

import pytest
from denoised.daemon.board.supply import LoadMark, boot_id


@pytest.fixture
def path(tmp_path):
    return tmp_path / "load.json"


def test_a_board_that_goes_off_as_load_begins_starts_more_softly_next_time_and_says_so(path):
    LoadMark(path, "boot-1").begin(100.0)  # the light goes out
    second = LoadMark(path, "boot-2")
    assert (second.deaths, second.cap) == (1, 0.8)
    assert str(second.problem()).startswith("the board went off just as work began: the power supply")
    second.begin(10.0)
    third = LoadMark(path, "boot-3")
    assert third.cap == pytest.approx(0.64)
    assert "2 times in a row" in str(third.problem())


def test_a_supply_that_stands_the_load_is_trusted_again(path):
    LoadMark(path, "boot-1").begin(0.0)
    mark = LoadMark(path, "boot-2")
    mark.begin(100.0)
    mark.stand(129.0)
    assert mark.deaths == 1
    mark.stand(131.0)
    assert (mark.deaths, mark.cap, mark.problem()) == (0, 1.0, None)
    assert LoadMark(path, "boot-3").deaths == 0


@pytest.mark.parametrize("end", ["stood", "ended"])
def test_a_plug_that_is_pulled_later_is_no_weak_supply(path, end):
    mark = LoadMark(path, "boot-1")
    mark.begin(0.0)
    mark.stand(31.0) if end == "stood" else mark.end()
    assert LoadMark(path, "boot-2").deaths == 0


def test_a_daemon_that_was_killed_in_the_same_boot_is_no_weak_supply(path):
    LoadMark(path, "boot-1").begin(0.0)
    assert LoadMark(path, "boot-1").deaths == 0
    assert LoadMark(path, "boot-2").deaths == 0  # the mark went with it


def test_a_boot_without_a_name_proves_nothing(path):
    LoadMark(path, "").begin(0.0)
    assert LoadMark(path, "boot-2").deaths == 0


def test_the_load_never_begins_with_less_than_half(path):
    for boot in range(9):
        LoadMark(path, f"boot-{boot}").begin(0.0)
    assert LoadMark(path, "boot-9").cap == 0.5


def test_many_short_loads_write_twice_a_minute_at_most(path, monkeypatch):
    mark = LoadMark(path, "boot-1")
    writes: list[int] = []
    monkeypatch.setattr("denoised.daemon.board.supply.os.fsync", writes.append)
    for second in range(600):
        mark.begin(float(second))
        mark.end()
    assert len(writes) == 2 * 10


@pytest.mark.parametrize("text", ["", "[]", '{"boot": 1}', "\xff", '{"boot": "b", "load_begins": true, "deaths": "many"}'])
def test_a_damaged_mark_is_none(path, text):
    path.write_text(text)
    assert LoadMark(path, "boot-2").deaths == 0


def test_a_disk_that_fails_holds_nothing_up(tmp_path):
    mark = LoadMark(tmp_path / "gone" / "load.json", "boot-1")
    mark.begin(0.0)
    mark.stand(31.0)
    assert mark.problem() is None


def test_the_boots_name_is_the_kernels(tmp_path):
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("0d1f\n")
    assert boot_id(tmp_path / "sys") == "0d1f"
    assert boot_id(tmp_path / "elsewhere/sys") == ""


def test_the_mark_is_whole_on_the_disk(path):
    LoadMark(path, "boot-1").begin(0.0)
    assert json.loads(path.read_text()) == {"boot": "boot-1", "load_begins": True, "deaths": 0}
