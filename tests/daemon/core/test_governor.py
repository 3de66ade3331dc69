"""The policy: limits, deadlines, floors and joules, by example and over worlds chosen by chance."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from denoised.daemon.board.simulated import PRESETS, SimulatedBoard
from denoised.daemon.core.governor import Demand, Governor, Limits, Option
from denoised.daemon.core.reading import Reading, Traits
from denoised.daemon.rehearsal import Headlong, Work, rehearse
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
TRAITS = Traits("generic", "a board", 85.0, 100.0, False, (0.5, 0.75, 1.0), 3.0, 8.0)
FULL_W = 5.0
OPTIONS = tuple(
    Option(4.0 * steps / 20 / speed, FULL_W * share, quality)
    for steps, quality in ((20, 1.0), (10, 0.98), (5, 0.9))
    for speed, share in ((1.0, 1.0), (0.6, 0.53), (0.32, 0.28))
)
PLENTY = (Work(math.inf, floor=0.95),)
BULK = Demand(OPTIONS, math.inf, floor=0.95)


@pytest.fixture(scope="module")
def worlds():
    spec = importlib.util.spec_from_file_location("bench_governor", ROOT / "bench" / "governor.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_governor"] = module
    spec.loader.exec_module(module)
    return module


def reading(at, temp_c, **more):
    return Reading(float(at), temp_c, **more)


def settled(temp_c, limits=None, traits=TRAITS, seconds=30, **more):
    """A governor that has seen the board idle at this temperature."""
    governor = Governor(traits, limits or Limits(83.0), **more)
    for t in range(seconds):
        governor.observe(reading(t, temp_c), 0.0)
    return governor


# ---- worlds by chance ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_in_any_world_the_limit_is_held_deadlines_are_met_and_bulk_is_not_starved(worlds, seed):
    world = worlds.world(seed, seconds=700.0, faulty=False)
    outcome = world.play()
    knowing = world.play(lambda board: worlds.KnowsAll(board, world.calibration, world.limit_c))
    assert outcome.throttle_events == 0
    assert outcome.missed == 0
    assert outcome.over_k < 1.0
    assert outcome.excess_k < 0.1
    assert outcome.samples > 0.9 * knowing.samples - 2
    assert all(math.isfinite(v) for row in outcome.rows for v in (row.temp_c, row.believed_c, row.duty, row.clock))


@pytest.mark.parametrize("seed", range(2000, 2008))
def test_a_world_whose_sensor_breaks_is_survived(worlds, seed):
    world = replace(worlds.world(seed, seconds=700.0, faulty=True), ambient=lambda t: 20.0)
    outcome = world.play()
    assert outcome.throttle_events == 0
    assert outcome.missed == 0
    assert outcome.samples > 0


READINGS = st.none() | st.floats() | st.sampled_from([0.0, 60.0, 61.0, 1e6, -273.15, 350.0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(READINGS, st.none() | st.floats(0, 20), st.none() | st.floats(0, 1e9), st.floats(0, 5)), max_size=30))
def test_whatever_the_sensors_say_decisions_are_sound(story):
    governor, now = Governor(replace(TRAITS, has_power=True), Limits(83.0)), 0.0
    for temp, busy, rail, dt in story:
        now += dt
        governor.observe(reading(now, temp, power_w=rail), busy)
        decision = governor.decide(now, [Demand(OPTIONS, 1.0, 20.0, 0.95, realtime=True), BULK])
        assert 0 <= decision.duty <= 1
        assert decision.clock in TRAITS.clocks
        assert all(OPTIONS[c].quality >= 0.95 for c in decision.choices)
        assert math.isfinite(governor.temp_c)
        assert math.isfinite(governor.headroom_k)
        assert decision.reason


# ---- heat ---------------------------------------------------------------------------------------------------------------


def governed(preset="pi5", ambient_c=30.0, seconds=1500, works=PLENTY, **more):
    board = SimulatedBoard(preset=preset, ambient_c=ambient_c, seed=2)
    full_w = board.preset.full_w - board.preset.idle_w
    options = tuple(Option(o.seconds, o.watts / FULL_W * full_w, o.quality) for o in OPTIONS)
    limits = more.pop("limits", Limits(board.traits.throttle_c - 2))
    return rehearse(board, options, works, limits, seconds, **more)


def test_r_15_the_same_load_that_throttles_a_board_by_itself_never_does_under_the_governor():
    alone, kept = governed(policy=Headlong()), governed()
    assert alone.throttle_events > 0
    assert kept.throttle_events == 0
    assert kept.over_k < 0.5


def test_at_the_limit_nothing_swings():
    rows = governed().rows[900:]
    temps = [row.temp_c for row in rows]
    mean = sum(temps) / len(temps)
    assert 77.0 < mean < 78.0
    assert math.sqrt(sum((t - mean) ** 2 for t in temps) / len(temps)) < 0.25
    minutes = [sum(row.power_w for row in rows[i : i + 60]) / 60 for i in range(0, 540, 60)]
    assert max(minutes) - min(minutes) < 0.15 * FULL_W


def test_stored_heat_is_used_before_the_limit_is_held():
    outcome = governed()
    assert all(row.clock == 1.0 and row.duty == 1.0 for row in outcome.rows[10:60])
    assert outcome.hottest_c > 77.5


def test_a_lower_clock_is_preferred_to_a_pause_and_without_the_right_fewer_threads_are():
    rows = governed().rows[900:]
    assert all(row.duty == 1.0 for row in rows)
    assert min(row.clock for row in rows) < 1.0


def test_r_16_what_the_board_says_of_throttling_is_believed_where_its_sensor_is_not():
    governor = settled(60.0)
    for t in range(30, 40):
        governor.observe(reading(t, None, throttled=True), FULL_W)
    assert governor.temp_c > 80
    assert "blind" in governor.decide(40.0, [BULK]).reason


def test_r_17_load_begins_softly_and_a_supply_that_gave_way_is_asked_for_less():
    governor, planned = settled(40.0), []
    for t in range(30, 38):
        decision = governor.decide(float(t), [BULK])
        watts = OPTIONS[decision.choices[0]].watts * decision.duty
        planned.append(governor.watts(watts, decision.clock))
        governor.observe(reading(t + 1, 40.0 + t - 30, under_voltage_events=0), watts)
    assert planned[0] < 0.4 * FULL_W
    assert max(b - a for a, b in zip(planned, planned[1:])) < 0.45 * FULL_W
    assert planned[-1] > 0.9 * FULL_W
    governor.observe(reading(39, 48.0, under_voltage_events=1), FULL_W)
    asked = []
    for t in range(39, 60):
        decision = governor.decide(float(t), [BULK])
        asked.append(governor.watts(OPTIONS[decision.choices[0]].watts * decision.duty, decision.clock))
    assert sum(asked) / len(asked) < 0.92 * FULL_W
    assert "supply" in decision.reason


def test_r_18_a_real_time_job_that_finds_a_slow_clock_still_ends_in_time():
    governor = settled(82.9)
    for due in (1.5, 3.0, 6.0, 20.0):
        decision = governor.decide(30.0, [Demand(OPTIONS, 1.0, due, 0.9, realtime=True), BULK])
        assert 1.5 * OPTIONS[decision.choices[0]].seconds / decision.clock <= due


def test_a_deadline_that_only_the_fastest_point_can_meet_gets_it_at_the_full_clock_whatever_the_heat():
    decision = settled(84.5).decide(30.0, [Demand(OPTIONS, 1.0, 1.1, 0.9, realtime=True), BULK])
    assert (OPTIONS[decision.choices[0]].seconds, decision.clock) == (1.0, 1.0)
    assert decision.duty == 0.0


def test_a_power_limit_is_held():
    outcome = governed(ambient_c=10.0, limits=Limits(78.0, power_w=5.0), seconds=600)
    rows = outcome.rows[100:]
    assert 4.3 < sum(row.power_w for row in rows) / len(rows) < 5.3


def test_the_boards_over_current_protection_is_kept_clear_of():
    governor = settled(40.0, traits=replace(TRAITS, limit_w=6.0))
    decisions = [governor.decide(30.0 + t, [BULK]) for t in range(40)]
    watts = [governor.watts(OPTIONS[d.choices[0]].watts * d.duty, d.clock) for d in decisions]
    assert 2.4 < sum(watts[10:]) / 30 < 2.75
    assert "power" in decisions[-1].reason


def test_a_days_energy_is_spread():
    governor = settled(40.0, Limits(83.0, energy_j_left=3600.0, energy_s_left=3600.0))
    decisions = [governor.decide(30.0 + t, [BULK]) for t in range(40)]
    watts = [governor.watts(OPTIONS[d.choices[0]].watts * d.duty, d.clock) for d in decisions]
    assert sum(watts[10:]) / 30 < 1.05
    assert "energy" in decisions[-1].reason


# ---- joules -------------------------------------------------------------------------------------------------------------


def test_under_the_objective_energy_the_same_samples_cost_less_and_are_there_in_time():
    works = [Work(150, due_s=1400.0, floor=0.95)]
    fast, frugal = (governed(ambient_c=20.0, works=works, limits=Limits(78.0, objective=o)) for o in ("throughput", "energy"))
    assert frugal.unfinished == fast.unfinished == 0
    assert frugal.samples == pytest.approx(150)
    assert frugal.joules < 0.75 * fast.joules
    busy = [row.at for row in frugal.rows if row.duty > 0 and row.choice >= 0]
    assert max(busy) > 1300


# ---- promises -----------------------------------------------------------------------------------------------------------


def test_a_promise_is_kept_by_the_board():
    board = SimulatedBoard(preset="pi5", ambient_c=30.0, seed=2)
    full_w = board.preset.full_w - board.preset.idle_w
    options = tuple(Option(o.seconds, o.watts / FULL_W * full_w, o.quality) for o in OPTIONS)
    governor = Governor(board.traits, Limits(78.0))
    rehearse(board, options, [Work(math.inf, floor=0.95)], governor.limits, 600, policy=governor)
    promise = governor.promise(600.0, [Demand(options, 200.0, None, 0.95)], 0)
    outcome = rehearse(board, options, [Work(200.0, floor=0.95)], governor.limits, 1500,
                       policy=Governor(board.traits, Limits(78.0), governor.learnt()))  # fmt: skip
    ended = max(row.at for row in outcome.rows if row.duty > 0 and row.choice >= 0)
    assert promise.kept
    assert 0.8 * promise.finish_in < ended < 1.05 * promise.finish_in


def test_a_deadline_that_cannot_be_met_is_answered_with_one_that_can():
    governor = settled(60.0)
    demand = Demand(OPTIONS, 500.0, 100.0, 0.95)
    refused = governor.promise(30.0, [demand], 0)
    assert not refused.kept
    assert refused.finish_in > 100
    accepted = governor.promise(30.0, [replace(demand, due_in=refused.finish_in)], 0)
    assert accepted.kept
    assert OPTIONS[accepted.option].quality >= 0.95
    assert 0 < accepted.joules < math.inf


def test_what_is_before_a_job_is_counted():
    governor = settled(60.0)
    alone = governor.promise(30.0, [Demand(OPTIONS, 20.0)], 0)
    behind = governor.promise(30.0, [Demand(OPTIONS, 20.0), Demand(OPTIONS, 20.0)], 1)
    assert behind.finish_in > 1.8 * alone.finish_in
    assert behind.joules == pytest.approx(alone.joules, rel=0.3)


def test_a_real_time_job_waits_for_no_heat():
    promise = settled(84.0).promise(30.0, [BULK, Demand(OPTIONS, 1.0, 3.0, 0.9, realtime=True)], 1)
    assert promise.kept
    assert promise.finish_in < 2


def test_where_nothing_can_run_no_end_is_promised():
    governor = settled(95.0)
    assert governor.promise(30.0, [Demand(OPTIONS, 10.0, 100.0)], 0).finish_in == math.inf


# ---- memory -------------------------------------------------------------------------------------------------------------


def test_what_was_learnt_is_json_and_spares_the_next_start_the_search():
    board = SimulatedBoard(preset="pi5", ambient_c=30.0, seed=2)
    governor = Governor(board.traits, Limits(78.0))
    rehearse(board, OPTIONS, [Work(math.inf)], governor.limits, 600, policy=governor)
    learnt = json.loads(json.dumps(governor.learnt()))
    again = Governor(board.traits, Limits(78.0), learnt)
    assert again.learnt()["thermal"] == pytest.approx(learnt["thermal"])
    assert again.learnt()["sensor"] == learnt["sensor"]


@pytest.mark.parametrize(
    "learnt",
    [
        {},
        {"board": "another"},
        {"board": "a board", "thermal": [1e9, 0, 0, 0]},
        {"board": "a board", "thermal": [math.nan] * 4, "power": "x", "sensor": [None, 1]},
        {"board": "a board", "thermal": None, "power": [0, 0, 0], "sensor": []},
        {"board": "a board", "power": [3.0, True, "0.6"], "sensor": [0.5, -1]},
    ],
)
def test_a_memory_that_makes_no_sense_is_not_taken(learnt):
    fresh = Governor(TRAITS, Limits(83.0))
    assert Governor(TRAITS, Limits(83.0), learnt).learnt() == fresh.learnt()


def test_every_preset_is_governed_in_its_own_weather():
    for name in PRESETS:
        outcome = governed(name, seconds=300, ambient_c=25.0)
        assert outcome.throttle_events == 0
        assert outcome.samples > 50
