from __future__ import annotations

import pytest
from denoised.config import typed
from denoised.config.tree import Policy
from denoised.daemon.core.bulk import below_rest, waits


def policy(**given):
    return typed.read(given, Policy)


@pytest.mark.parametrize(
    ("minute", "minutes_left"), [(21 * 60, None), (22 * 60, 480), (23.5 * 60, 390), (0, 360), (5 * 60 + 59.5, 0.5), (6 * 60, None)]
)
def test_quiet_hours_go_over_midnight(minute, minutes_left):
    found = waits(policy(quiet_hours=["22:00-06:00"]), minute, None, None)
    assert (found and found.ends_in) == (minutes_left and minutes_left * 60)


@pytest.mark.parametrize("order", [1, -1])
def test_quiet_hours_that_go_on_in_others_end_with_the_last(order):
    found = waits(policy(quiet_hours=["22:00-02:00", "02:00-05:00", "04:00-06:00"][::order]), 23 * 60, None, None)
    assert (found.why, found.ends_in) == ("quiet hours until 06:00", 7 * 3600)


def test_quiet_hours_all_day_and_night_do_not_turn_for_ever():
    found = waits(policy(quiet_hours=["00:00-12:00", "12:00-00:00"]), 60, None, None)
    assert found.ends_in >= 23 * 3600


def test_equal_times_are_no_quiet_hours():
    with pytest.raises(typed.Flaws, match="two different times of day"):
        policy(quiet_hours=["22:00-22:00"])


def test_a_budget_that_the_board_takes_at_rest_is_said_to_be_that_and_ends_never():
    tight = policy(energy_budget_j_per_day=200_000)
    found = waits(tight, 1, None, 0.0, 3.0)
    assert (found.ends_in, found.why) == (None, below_rest(tight, 3.0))
    assert "200000 J" in found.why and "259200 J" in found.why


def test_a_budget_that_is_used_up_waits_until_midnight():
    found = waits(policy(energy_budget_j_per_day=400_000), 1380, None, 0.0, 3.0)
    assert ("until midnight" in found.why, found.ends_in) == (True, 3600)
