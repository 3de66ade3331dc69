from __future__ import annotations

import math

import pytest
from denoised.daemon.core.pace import SHORTEST_S, Pace
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(0.02, 1.0), st.lists(st.floats(1e-4, 2.0), min_size=1, max_size=50))
def test_the_share_of_time_at_work_is_the_duty_however_long_the_steps_are(duty, steps):
    pace = Pace()
    for step in steps:
        pace.worked(step)
        while (rest := pace.due(duty)) > 0:
            pace.rested(min(rest, 1.0))
    worked = sum(steps)
    owed = worked * (1 / duty - 1)
    assert owed - SHORTEST_S <= pace.total_s <= owed + 1e-6


def test_at_full_duty_it_never_rests_and_at_none_for_ever():
    pace = Pace()
    pace.worked(0.5)
    assert pace.due(1.0) == 0.0
    pace.worked(0.5)
    assert pace.due(0.0) == math.inf


def test_a_duty_that_changes_during_a_rest_counts_at_once():
    pace = Pace()
    pace.worked(1.0)
    assert pace.due(0.1) == pytest.approx(9.0)
    pace.rested(2.0)
    assert pace.due(0.5) == 0.0


def test_steps_of_a_millisecond_add_up_before_a_rest():
    pace = Pace()
    for _ in range(9):
        pace.worked(0.001)
        assert pace.due(0.5) == 0.0
    pace.worked(0.0011)
    assert pace.due(0.5) == pytest.approx(0.0101)
