"""What the policy makes of limits, supplies that give way, boards that refuse a cap, and of what will never end."""

from __future__ import annotations

import math

import pytest
from denoised.daemon.core import thermal
from denoised.daemon.core.governor import Demand, Governor, Limits, Option
from denoised.daemon.core.reading import Reading, Traits

TRAITS = Traits("generic", "g", 85.0, 100.0, has_power=False, clocks=(0.5, 0.75, 1.0))
BULK = Demand((Option(1.0, 4.0, 1.0),), math.inf)


def at(second, temp_c=50.0, **words):
    return Reading(float(second), temp_c, **words)


def governor(temp_c=50.0, seconds=30, limits=None, **words):
    policy = Governor(TRAITS, limits or Limits(80.0))
    for second in range(seconds):
        policy.observe(at(second, temp_c, **words), 0.0)
    return policy


# ---- supply ---------------------------------------------------------------------------------------------------------------


def test_a_counter_that_does_not_answer_now_and_then_is_no_supply_that_gave_way():
    policy = governor(under_voltage_events=1, over_current_events=2)
    for second in range(30, 70, 2):
        policy.observe(at(second), 0.0)
        policy.observe(at(second + 1, under_voltage_events=1, over_current_events=2), 0.0)
    assert policy._supply_w == math.inf


def test_each_counter_that_rose_while_it_did_not_answer_is_one():
    policy = governor(under_voltage_events=1, over_current_events=0)
    policy.observe(at(30, over_current_events=0), 4.0)
    policy.observe(at(31, under_voltage_events=2, over_current_events=0), 4.0)
    assert policy._supply_w == pytest.approx(0.9 * 4.0, rel=0.01)


# ---- the ramp -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power_w", [None, 3.4])
def test_without_the_ramp_the_other_limits_hold_from_the_first_moment(power_w):
    first = governor(limits=Limits(80.0, power_w, ramp=False)).decide(30.0, [BULK])
    softly = governor(limits=Limits(80.0, power_w, ramp=True)).decide(30.0, [BULK])
    assert softly.duty * 4.0 * softly.clock <= first.duty * 4.0 * first.clock
    if power_w is None:
        assert softly.reason.startswith("ramp") and (first.duty, first.reason) == (1.0, "plenty")
    else:
        assert first.reason.startswith("power") and first.duty < 0.4


# ---- the clock ------------------------------------------------------------------------------------------------------------


def test_where_the_board_refuses_a_cap_work_is_planned_and_its_heat_counted_at_the_full_clock():
    policy = governor(limits=Limits(80.0, 4.0, ramp=False))
    capped = policy.decide(30.0, [BULK])
    assert capped.clock < 1.0
    policy.observe(at(31, speed=1.0), 2.0)
    believed = policy._spent_w
    policy.clocks = (1.0,)
    policy.observe(at(32, speed=1.0), 2.0)
    assert policy._spent_w > 1.2 * believed
    free = policy.decide(32.0, [BULK])
    assert free.clock == 1.0 and free.duty < capped.duty
    policy.clocks = TRAITS.clocks
    assert policy.decide(33.0, [BULK]).clock < 1.0


# ---- time -----------------------------------------------------------------------------------------------------------------


def test_a_reading_that_comes_late_takes_no_time_back():
    policy, prompt = governor(), governor()
    policy.observe(Reading(40.0, None, problems={"board": "no answer"}), 4.0)
    prompt.observe(Reading(40.0, None, problems={"board": "no answer"}), 4.0)
    policy.observe(at(31), 4.0)
    before = prompt._thermal.die_c
    policy.observe(Reading(40.0, None, problems={"board": "no answer"}), 4.0)
    assert policy._at == 40.0
    assert policy.temp_c <= before + 0.5  # not nine seconds of 4 W again


# ---- what will never end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(Option(1.0, 4.0, 1.0),), (Option(1.0, 4.0, 1.0), Option(0.5, 3.0, 0.7))])
def test_what_never_ends_is_known_at_once(monkeypatch, options):
    """A die at rest above the limit: no step of a prediction is needed to see that no watt is to be had."""
    policy, steps = governor(90.0, 120), list[object]()
    advance = thermal.Thermal.advance

    def counted(*given):
        steps.append(given)
        return advance(*given)

    monkeypatch.setattr(thermal.Thermal, "advance", counted)
    promised = policy.promise(120.0, [Demand(options, 100.0)] * 20, 19)
    assert (promised.finish_in, promised.kept) == (math.inf, True)
    assert len(steps) < 5


def test_a_power_limit_below_rest_never_lets_bulk_end_and_one_above_does():
    less, more = (governor(limits=Limits(80.0, TRAITS.idle_w + watts)) for watts in (-0.5, 2.0))
    ten = Demand(BULK.options, 10.0)
    assert less.promise(30.0, [ten], 0).finish_in == math.inf
    assert more.promise(30.0, [ten], 0).finish_in < 60.0


def test_a_board_that_is_only_hot_for_now_ends_its_work_after_it_has_cooled():
    policy = governor()
    policy._thermal.x[thermal.DIE], policy._thermal.x[thermal.SINK] = 90.0, 85.0
    assert policy._thermal.holds(80.0, 3.0) < 0
    found = policy.promise(30.0, [Demand(BULK.options, 10.0)], 0)
    assert 10.0 < found.finish_in < 3600.0


def test_a_job_of_a_week_is_predicted_by_what_can_be_held_for_good():
    policy = governor()
    k, week = policy._thermal.constants, 7 * 86400
    held_w = (80.0 - policy._margin() - policy.rest_c) / (k.r1 + k.r2)
    found = policy.promise(30.0, [Demand((Option(1.0, 5.0, 1.0),), float(week))], 0)
    rate = min(1.0, held_w / 5.0)
    assert found.finish_in <= 1.05 * week / rate * 1.1
    steady = policy._thermal.steady(held_w)
    assert steady[0] == pytest.approx(80.0 - policy._margin())
    assert policy._thermal.advance(steady, 10.0, held_w) == pytest.approx(steady, abs=0.05)
