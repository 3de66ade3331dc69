from __future__ import annotations

import json

import pytest
from denoised.daemon.core.costs import Cost, as_plain, from_plain


def test_work_that_grows_is_told_by_a_line():
    cost = Cost()
    for work in (1, 2, 4, 8):
        cost.learn(work, 0.5 + 0.1 * work)
    assert cost.seconds(16) == pytest.approx(0.5 + 1.6)


def test_nothing_is_said_before_the_first_job():
    assert (Cost().seconds(1), Cost().fastest(1)) == (None, None)


def test_the_fastest_run_speaks_for_what_takes_least_whatever_a_slow_one_took():
    cost = Cost()
    cost.learn(1, 6.0)
    cost.learn(1, 0.5)
    assert cost.fastest(2) == pytest.approx(1.0)
    assert cost.seconds(1) > 3


def test_a_single_slow_run_does_not_refuse_for_ever():
    cost, refused = Cost(), 0
    cost.learn(1, 6.0)
    while cost.fastest(1) > 5.0:
        cost.doubt()
        refused += 1
    assert 0 < refused < 5


def test_a_job_that_was_not_done_in_time_teaches_that_it_takes_longer():
    cost = Cost()
    cost.learn(1, 0.5)
    cost.too_short(1, 2.0)
    assert cost.fastest(1) >= 2.0
    assert cost.seconds(1) > 0.5
    cost.too_short(1, 0.1)
    assert cost.fastest(1) >= 2.0


def test_what_was_learnt_is_read_again_and_what_is_damaged_is_not():
    cost = Cost()
    cost.learn(3, 1.5)
    told = json.loads(json.dumps(as_plain({"a": cost}))) | {"b": {"n": 1}, "c": 7, "d": as_plain({"d": cost})["d"] | {"s": "x"}}
    assert from_plain(told) == {"a": cost}
