"""What a start makes of the marker that the last one left."""

from __future__ import annotations

import json

import pytest
from denoised.daemon import supply
from denoised.daemon.supply import Supply

WALL = 1.8e9


@pytest.fixture
def boot(monkeypatch):
    """boot(name): the machine starts again."""

    def to(name):
        monkeypatch.setattr(supply, "boot_id", lambda: name)

    to("one")
    return to


def test_a_boot_after_one_that_ended_under_load_draws_less_and_the_next_such_still_less(tmp_path, boot):
    Supply(tmp_path, WALL, 0.0).look(busy=True, tick=1.0)  # the light goes out
    boot("two")
    second = Supply(tmp_path, WALL + 60, 0.0)
    assert (second.faults, second.share) == (1, 0.8)
    assert "under load 1 time " in str(second.problem()) and "80%" in str(second.problem())
    second.look(busy=True, tick=1.0)
    boot("three")
    assert Supply(tmp_path, WALL + 120, 0.0).share == pytest.approx(0.64)


def test_a_boot_without_load_is_forgotten_and_a_day_forgives(tmp_path, boot):
    Supply(tmp_path, WALL, 0.0).look(busy=True, tick=1.0)
    boot("two")
    Supply(tmp_path, WALL, 0.0)
    boot("three")
    assert Supply(tmp_path, WALL + 3600, 0.0).faults == 1
    assert Supply(tmp_path, WALL + 90_000, 0.0).faults == 0


def test_a_daemon_that_dies_in_the_same_boot_is_no_weak_supply(tmp_path, boot):
    Supply(tmp_path, WALL, 0.0).look(busy=True, tick=1.0)
    assert Supply(tmp_path, WALL, 0.0).problem() is None


@pytest.mark.parametrize("end", ["stop", "rest"])
def test_a_clean_stop_and_a_long_rest_take_the_marker_away(tmp_path, boot, end):
    before = Supply(tmp_path, WALL, 0.0)
    before.look(busy=True, tick=1.0)
    before.look(busy=False, tick=300.0)
    assert list(tmp_path.iterdir()) != []
    if end == "stop":
        before.clear()
    else:
        before.look(busy=False, tick=700.0)
    boot("two")
    assert Supply(tmp_path, WALL, 0.0).faults == 0


def test_load_that_comes_and_goes_writes_one_marker(tmp_path, boot, monkeypatch):
    written = []
    monkeypatch.setattr(supply, "write_json", lambda path, value: written.append(path.name))
    watched = Supply(tmp_path, WALL, 0.0)
    for tick in range(0, 3600, 10):
        watched.look(busy=tick % 20 == 0, tick=float(tick))
    assert written == ["under-load.json"]


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"faults": "x", "at": 1}), json.dumps({"faults": 3, "at": None})])
def test_a_damaged_memory_of_it_counts_as_none(tmp_path, boot, text):
    (tmp_path / "supply.json").write_text(text)
    (tmp_path / "under-load.json").write_text("cut short")
    assert Supply(tmp_path, WALL, 0.0).faults == 0


def test_a_day_of_running_lifts_it(tmp_path, boot):
    Supply(tmp_path, WALL, 0.0).look(busy=True, tick=1.0)
    boot("two")
    running = Supply(tmp_path, WALL, 50.0)
    running.look(busy=True, tick=50.0 + 86_399)
    assert running.share == 0.8
    running.look(busy=True, tick=50.0 + 86_400)
    assert (running.share, running.problem()) == (1.0, None)
    assert Supply(tmp_path, WALL, 0.0).faults == 0  # whatever the clock says next time


def test_what_was_left_of_the_day_is_left_after_a_restart(tmp_path, boot):
    Supply(tmp_path, WALL, 0.0).look(busy=True, tick=1.0)
    boot("two")
    Supply(tmp_path, WALL, 0.0)
    again = Supply(tmp_path, WALL + 80_000, 0.0)
    again.look(busy=False, tick=6_399.0)
    assert again.faults == 1
    again.look(busy=False, tick=6_400.0)
    assert again.faults == 0


def test_a_clock_that_has_gone_back_forgives_nothing(tmp_path, boot):
    Supply(tmp_path, WALL, 0.0).look(busy=True, tick=1.0)
    boot("two")
    Supply(tmp_path, WALL, 0.0)
    boot("three")
    assert Supply(tmp_path, 1000.0, 0.0).faults == 1  # 1970, as after a boot without a network
