"""The simulated board: its heat, its ways to protect itself, its sensor, and that it is a board like the others."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from denoised.config import tree
from denoised.daemon.board.simulated import PRESETS, Fault, SimulatedBoard, machine_load
from denoised.daemon.core.reading import Reading


def board(preset="pi5", **more):
    return SimulatedBoard(preset=preset, **{"ambient_c": 25.0, **more})


@pytest.mark.parametrize("name", PRESETS)
def test_idle_it_stays_where_it_is_but_for_leakage_and_fan(name):
    b = board(name)
    begun = b.temp_c
    b.step(3600.0, 0.0)
    assert abs(b.temp_c - begun) < 6.0
    assert b.throttle_events == 0


@pytest.mark.parametrize(
    ("name", "hot"), [("pi5", 100.0), ("pi4", 91.0), ("pi5-cooler", 69.0), ("orin-nano", 62.0), ("orin-nx", 64.0)]
)
def test_under_full_load_it_comes_to_rest_where_such_boards_were_measured(name, hot):
    b = board(name)
    b._protect = lambda h: None  # the measured figures are steady states without throttling
    b.fan = len(b.preset.fan_c)
    b.step(7200.0, 1.0)
    assert b.temp_c == pytest.approx(hot, abs=7.0)


def test_heat_that_goes_in_comes_out():
    b = board("orin-nano-box")
    b.step(4 * 3600.0, 0.5)
    out = (b.case_c - b.ambient_c) / b.preset.case_k_per_w
    assert out == pytest.approx(b.power_w, rel=0.01)


def test_half_a_step_twice_is_a_whole_one():
    once, twice = board(), board()
    once.step(10.0, 1.0)
    for _ in range(100):
        twice.step(0.1, 1.0)
    assert once.temp_c == pytest.approx(twice.temp_c, abs=0.1)


@pytest.mark.parametrize(("name", "ambient"), [("pi5", 35.0), ("orin-nano-box", 65.0), ("generic", 45.0)])
def test_above_its_throttle_point_it_slows_down_and_counts_it(name, ambient):
    b = board(name, ambient_c=ambient)
    b.step(3600.0, 1.0)
    reading = b.read(0.0)
    assert reading.throttled
    assert reading.throttle_events == b.throttle_events
    assert b.throttle_events >= 1
    assert b.speed < 1.0
    assert b.throttled_s > 60
    b.step(3600.0, 0.0)
    assert not b.read(1.0).throttled


def test_too_hot_it_switches_itself_off():
    b = board(ambient_c=120.0)
    b.step(600.0, 1.0)
    assert b.off
    assert (b.speed, b.power_w) == (0.0, 0.0)


def test_a_capped_clock_takes_less_than_its_share_of_power():
    full, half = board("orin-nano"), board("orin-nano")
    assert half.cap_clock(0.5) is None
    full.step(1.0, 1.0)
    half.step(1.0, 1.0)
    dynamic = [b.power_w - b.preset.idle_w for b in (full, half)]
    assert dynamic[1] < 0.45 * dynamic[0]
    half.close()
    assert half.speed == 1.0


def test_without_the_right_it_says_why_no_clock_is_capped():
    b = board(capped=False)
    assert "no right" in b.cap_clock(0.5)
    assert b.traits.clocks == (1.0,)
    assert b.speed == 1.0


def test_its_sensor_shows_steps_and_noise():
    b = board("pi5", seed=1)
    shown = {b.read(t).temp_c for t in range(200)}
    assert all(v / 0.55 == pytest.approx(round(v / 0.55), abs=0.01) for v in shown)
    assert max(abs(v - b.temp_c) for v in shown) < 1.0


def test_each_fault_shows_and_heals():
    b = board()
    b.fault("missing")
    assert (b.read(0.0).temp_c, b.read(0.0).problems) == (None, {"temp_c": "no such device"})
    bounds: dict[Fault, tuple[float, float]] = {
        "zero": (0, 0), "spike": (1e5, 1e7), "kelvin": (273, 400), "millidegrees": (1000, 1e6),
    }  # fmt: skip
    for kind, (low, high) in bounds.items():
        b.fault(kind)
        shown = b.read(0.0).temp_c
        assert shown is not None
        assert low <= shown <= high
    b.fault("stuck")
    before = b.read(0.0).temp_c
    b.step(60.0, 1.0)
    assert b.read(0.0).temp_c == before
    b.fault("garbage")
    assert len({b.read(0.0).temp_c for _ in range(5)}) == 5
    b.fault(None)
    assert b.read(0.0).temp_c == pytest.approx(b.temp_c, abs=1.0)


def test_live_it_is_as_many_times_faster_as_it_is_told_under_the_load_that_it_is_told():
    b = SimulatedBoard(tree.Board(kind="simulated", preset="pi5", ambient_c=30.0, speedup=20.0))
    b.load = lambda: 1.0
    seen = [b.read(float(t)) for t in range(31)]
    same = board("pi5", ambient_c=30.0)
    same.step(600.0, 1.0)
    assert b.temp_c == pytest.approx(same.temp_c, abs=0.3)
    assert all(isinstance(r, Reading) and r.temp_c is not None for r in seen)
    assert [r.at for r in seen] == [float(t) for t in range(31)]


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"pi4, pi5.*found 'toaster'"):
        SimulatedBoard(preset="toaster")


def test_a_rail_shows_power_only_where_the_board_has_one():
    assert board("pi5").read(0.0).power_w is None
    assert board("orin-nano").read(0.0).power_w == pytest.approx(4.2, abs=0.1)


def test_over_current_is_counted_and_slows_it_down():
    b = SimulatedBoard(preset=replace(PRESETS["orin-nano"], limit_w=10.0))
    b.step(10.0, 1.0)
    assert b.over_current_events >= 1
    assert b.read(0.0).over_current_events == b.over_current_events
    assert b.speed < 1.0


def test_the_machines_own_load_is_a_share():
    load = machine_load()
    assert all(0 <= load() <= 1 for _ in itertools.repeat(None, 3))
    assert math.isfinite(load())
