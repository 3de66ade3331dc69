from __future__ import annotations

import json
import math

import pytest
from denoised.daemon.core.costs import Cost, as_plain, from_plain
from hypothesis import given
from hypothesis import strategies as st


def learnt(*jobs):
    cost = Cost()
    for work, seconds in jobs:
        cost.learn(work, seconds)
    return cost


def test_nothing_is_known_before_the_first_job():
    assert Cost().seconds(5.0) is None


def test_jobs_that_are_all_alike_are_scaled_in_proportion():
    assert learnt((10, 2.0), (10, 2.0)).seconds(20) == pytest.approx(4.0)


def test_a_fixed_part_is_told_from_the_part_that_grows():
    cost = learnt(*((work, 0.5 + 0.1 * work) for work in (1, 10, 3, 50, 20)))
    assert cost.seconds(100) == pytest.approx(10.5)
    assert cost.seconds(1) == pytest.approx(0.6)


def test_what_came_lately_counts_more():
    cost = learnt(*[(1, 1.0)] * 20, *[(1, 2.0)] * 20)
    assert cost.seconds(1) == pytest.approx(2.0, rel=0.15)


def test_a_job_that_took_longer_than_predicted_makes_the_next_predictions_more_careful_for_a_while():
    cost = learnt((1, 1.0), (1, 1.0), (1, 1.5))
    assert cost.off == pytest.approx(0.5, rel=0.01)
    for _ in range(30):
        cost.learn(1, cost.seconds(1) or 0)
    assert cost.off < 0.01


@given(st.lists(st.tuples(st.floats(0.01, 1e5), st.floats(1e-4, 1e5)), min_size=1), st.floats(0.01, 1e6))
def test_a_prediction_is_a_finite_time_that_is_not_negative(jobs, work):
    seconds = learnt(*jobs).seconds(work)
    assert seconds is not None and math.isfinite(seconds) and seconds >= -1e-6 * max(s for _, s in jobs)


def test_what_was_learnt_is_kept_and_what_is_damaged_is_left_out():
    costs = {"a": learnt((1, 1.0), (3, 2.0))}
    plain = json.loads(json.dumps(as_plain(costs)))
    assert from_plain(plain) == costs
    assert from_plain({**plain, "b": {"n": 1}, "c": 5, "d": {**plain["a"], "s": -1}}) == costs
    assert from_plain(None) == from_plain([1]) == {}


def test_the_fastest_run_speaks_for_what_takes_least_whatever_a_slow_one_took():
    cost = Cost()
    cost.learn(1, 6.0)
    cost.learn(1, 0.5)
    assert cost.fastest(2) == pytest.approx(1.0)
    assert (cost.seconds(1) or 0) > 3


def test_a_single_slow_run_does_not_refuse_for_ever():
    cost, refused = Cost(), 0
    cost.learn(1, 6.0)
    while (cost.fastest(1) or 0) > 5.0:
        cost.doubt()
        refused += 1
    assert 0 < refused < 5


def test_a_job_that_was_not_done_in_time_teaches_that_it_takes_longer():
    cost = Cost()
    cost.learn(1, 0.5)
    cost.too_short(1, 2.0)
    assert (cost.fastest(1) or 0) >= 2.0
    assert (cost.seconds(1) or 0) > 0.5
    cost.too_short(1, 0.1)
    assert (cost.fastest(1) or 0) >= 2.0
