"""Joules over time, and the meter that calibrations use."""

from __future__ import annotations

import time

import pytest
from denoised.config.tree import Board as BoardConfig
from denoised.daemon.board.board import find_board
from denoised.daemon.board.energy import UNCERTAINTY, Integral, Meter, MeterError, estimated, modelled
from denoised.daemon.core.reading import Traits
from hypothesis import given
from hypothesis import strategies as st

TRAITS = Traits("generic", "a board", 85.0, 100.0, has_power=False, idle_w=3.0, full_w=8.0)


def test_power_between_two_readings_is_a_straight_line():
    integral = Integral(period=1.0)
    for at, watts in ((10.0, 4.0), (11.0, 8.0), (11.5, 8.0)):
        integral.add(at, watts)
    assert (integral.joules, integral.seconds) == (10.0, 1.5)
    energy = integral.energy(idle_w=3.0)
    assert energy
    assert (energy.joules, energy.method, energy.idle_j) == (10.0, "rail", 4.5)
    assert energy.uncertainty == UNCERTAINTY["rail"]


def test_nothing_is_counted_over_a_gap_or_a_reading_that_failed_and_the_doubt_grows():
    integral = Integral(period=1.0)
    for at, watts in ((0.0, 5.0), (1.0, 5.0), (4.0, 5.0), (5.0, None), (6.0, 5.0), (7.0, 5.0)):
        integral.add(at, watts)
    assert (integral.joules, integral.seconds, integral.dropped_s) == (10.0, 2.0, 5.0)
    energy = integral.energy(0.0)
    assert energy and energy.uncertainty == pytest.approx(UNCERTAINTY["rail"] + 5 / 7, abs=1e-3)


def test_the_time_that_work_rests_is_not_its_own():
    integral = Integral(period=1.0)
    for at, watts in ((0.0, 5.0), (1.0, 5.0)):
        integral.add(at, watts)
    integral.pause()
    for at, watts in ((2.0, 50.0), (3.0, 50.0)):
        integral.add(at, watts)
    assert (integral.joules, integral.seconds, integral.dropped_s) == (55.0, 2.0, 0.0)


def test_without_two_readings_there_is_no_energy():
    integral = Integral(1.0)
    assert integral.energy(3.0) is None
    integral.add(0.0, 5.0)
    integral.add(0.0, 7.0)  # no time has passed
    assert integral.energy(3.0) is None


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.none() | st.floats(0.0, 100.0)), max_size=30))
def test_energy_lies_between_the_least_and_the_most_power_of_the_time_covered(readings):
    integral, at = Integral(1.0), 0.0
    for dt, watts in readings:
        at += dt
        integral.add(at, watts)
    known = [w for _, w in readings if w is not None]
    assert 0.0 <= integral.seconds + integral.dropped_s <= at * (1 + 1e-9)
    if integral.seconds:
        assert min(known) - 1e-6 <= integral.joules / integral.seconds <= max(known) + 1e-6


def test_what_is_modelled_or_estimated_says_so_and_how_far_it_may_be_off():
    model = modelled(busy_w=2.0, idle_w=3.0, seconds=10.0)
    assert (model.joules, model.method, model.idle_j) == (50.0, "model", 30.0)
    guess = estimated(TRAITS, cpu_s=0.0, seconds=10.0)
    assert (guess.joules, guess.method, guess.idle_j) == (30.0, "estimate", 30.0)
    assert estimated(TRAITS, 4.0, 10.0).joules > guess.joules
    assert UNCERTAINTY["rail"] < model.uncertainty < guess.uncertainty


@pytest.fixture
def nano(tmp_path):
    chip = tmp_path / "class/hwmon/hwmon1"
    chip.mkdir(parents=True)
    for name, text in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1000"}.items():
        (chip / name).write_text(text)
    return find_board(BoardConfig(sysfs_root=str(tmp_path))), chip


def test_the_meter_watches_a_rail_all_the_time(nano):
    board, chip = nano
    meter = Meter(board)
    assert (meter.measured, meter.method) == (True, "power rails VDD_IN")
    meter.start()
    (chip / "curr1_input").write_text("3000")
    while meter._integral.seconds < 0.2:
        time.sleep(0.01)
    (chip / "curr1_input").write_text("1000")
    assert 7.5 < meter.stop() < 15.0


def test_a_work_that_is_shorter_than_a_period_has_the_power_of_its_end(nano):
    meter = Meter(nano[0])
    meter.start()
    assert meter.stop() == pytest.approx(5.0)


def test_a_rail_that_stops_answering_is_an_error_and_not_a_number(nano):
    board, chip = nano
    meter = Meter(board)
    (chip / "curr1_input").unlink()
    meter.start()
    with pytest.raises(MeterError, match="VDD_IN"):
        meter.stop()


def test_without_a_sensor_power_is_estimated_from_cpu_time_and_said_so(tmp_path):
    board = find_board(BoardConfig(sysfs_root=str(tmp_path)))
    meter = Meter(board)
    assert not meter.measured
    assert meter.method.startswith("estimated: 3 W and ")
    meter.start()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert board.traits.idle_w < meter.stop() <= board.traits.full_w


def test_a_meter_can_be_used_again(nano):
    board, chip = nano
    meter = Meter(board)
    for ma in ("1000", "2000"):
        (chip / "curr1_input").write_text(ma)
        meter.start()
        assert meter.stop() == pytest.approx(5.0 * int(ma) / 1000)
