from __future__ import annotations

import dataclasses

import pytest
from denoised.config import typed
from denoised.config.tree import Policy
from denoised.daemon.core.bulk import below_rest, is_bulk, waits
from denoised.daemon.core.job import Job

JOB = Job("a", "toy", {}, 0, 1, 0.0)


def policy(**given):
    return typed.read(given, Policy)


def test_bulk_is_what_has_no_deadline_and_background_kinds_in_any_case():
    assert is_bulk(JOB)
    assert not is_bulk(dataclasses.replace(JOB, deadline_at=5.0))
    assert is_bulk(dataclasses.replace(JOB, deadline_at=5.0, priority=-1))
    assert not is_bulk(dataclasses.replace(JOB, durable=False))


@pytest.mark.parametrize(
    ("minute", "ends_in"),
    [
        (21 * 60 + 59, None),
        (22 * 60, 8 * 3600),
        (23 * 60 + 59, 6 * 3600 + 60),
        (0, 6 * 3600),
        (5 * 60 + 59, 60),
        (6 * 60, None),
    ],
)
def test_quiet_hours_go_over_midnight(minute, ends_in):
    found = waits(policy(quiet_hours=["22:00-06:00"]), minute, None, None)
    assert (found and found.ends_in) == ends_in
    assert found is None or found.why == "quiet hours until 06:00"


def test_the_first_of_several_quiet_hours_that_holds_is_named():
    hours = ["06:00-07:00", "12:00-13:30"]
    found = waits(policy(quiet_hours=hours), 12 * 60, None, None)
    assert found and found.why == "quiet hours until 13:30"
    assert waits(policy(quiet_hours=hours), 7 * 60, None, None) is None


def test_a_budget_that_is_used_up_holds_until_midnight():
    found = waits(policy(energy_budget_j_per_day=1000), 23 * 60, None, -3.0)
    assert found and (found.ends_in, "1000 J is used up until midnight" in found.why) == (3600, True)
    assert waits(policy(energy_budget_j_per_day=1000), 23 * 60, None, 1.0) is None


@pytest.mark.parametrize(
    ("bound", "value", "held"),
    [({"above": 0.3}, 0.31, True), ({"above": 0.3}, 0.3, False), ({"below": 40}, 39.0, True), ({"below": 40}, 40.0, False)],
)
def test_a_signal_holds_on_its_side_of_the_threshold(bound, value, held):
    found = waits(policy(signal={"topic": "plant/x", **bound}), 0, value, None)
    assert (found is not None) == held
    assert found is None or found.why.startswith(f"plant/x is {value:g}, ")


def test_a_signal_that_was_never_heard_holds_nothing():
    assert waits(policy(signal={"topic": "plant/x", "above": 0.3}), 0, None, None) is None


@pytest.mark.parametrize("bound", [{}, {"above": 1, "below": 2}])
def test_a_signal_needs_one_threshold(bound):
    with pytest.raises(typed.Flaws, match="one of 'above'"):
        policy(signal={"topic": "plant/x", **bound})


@pytest.mark.parametrize("hours", ["22-06", "24:00-06:00", "22:00", "22:00-06:60"])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(typed.Flaws, match="such as 22:00-06:00"):
        policy(quiet_hours=[hours])


@pytest.mark.parametrize("order", [1, -1])
def test_quiet_hours_that_go_on_in_others_end_with_the_last(order):
    found = waits(policy(quiet_hours=["22:00-02:00", "02:00-05:00", "04:00-06:00"][::order]), 23 * 60, None, None)
    assert found and (found.why, found.ends_in) == ("quiet hours until 06:00", 7 * 3600)


def test_quiet_hours_all_day_and_night_do_not_turn_for_ever():
    found = waits(policy(quiet_hours=["00:00-12:00", "12:00-00:00"]), 60, None, None)
    assert found and (found.ends_in or 0) >= 23 * 3600


def test_equal_times_are_no_quiet_hours():
    with pytest.raises(typed.Flaws, match="two different times of day"):
        policy(quiet_hours=["22:00-22:00"])


def test_a_budget_that_the_board_takes_at_rest_is_said_to_be_that_and_ends_never():
    tight = policy(energy_budget_j_per_day=200_000)
    found = waits(tight, 1, None, 0.0, 3.0)
    assert found and (found.ends_in, found.why) == (None, below_rest(tight, 3.0))
    assert "200000 J" in found.why and "259200 J" in found.why
