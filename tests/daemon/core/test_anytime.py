from __future__ import annotations

import math

import pytest
from denoised.daemon.core.anytime import Anytime


def play(anytime, step_s, steps, batch=1):
    """Steps that each problem gets, and when the last one ends; a problem cut short costs one more call."""
    now, taken = 0.0, []
    for first in range(0, anytime.items, batch):
        anytime.begin(now, min(batch, anytime.items - first), first, first)
        step = 0
        while step < steps and not anytime.enough(now, step_s):
            now, step = now + step_s, step + 1
        now += step_s * (step < steps) + anytime.rest_s * batch
        taken.append(step)
    return taken, now


def test_with_time_enough_every_step_is_taken():
    assert play(Anytime(100.0, 5, 5, 0.1), 0.1, 20) == ([20] * 5, pytest.approx(10.5))


def test_without_a_deadline_every_step_is_taken():
    assert play(Anytime(math.inf, 2, 2, 0.1), 1.0, 20)[0] == [20, 20]


@pytest.mark.parametrize(("batch", "until"), [(1, 5.0), (4, 2.0)])
def test_time_that_is_short_is_spread_over_the_items_and_not_overdrawn(batch, until):
    taken, end = play(Anytime(until, 12, 12, 0.02), 0.05, 20, batch)
    assert end <= until
    assert min(taken) > 0 and max(taken) - min(taken) <= 2 and max(taken) < 20


def test_one_that_is_hurried_takes_no_further_step():
    anytime = Anytime(math.inf, 3, 3, 0.0)
    anytime.hurried = True
    assert play(anytime, 1.0, 20)[0] == [0, 0, 0]


def test_several_problems_about_the_same_items_share_it_too():
    job = Anytime(until=9.0, items=2, turns=6, rest_s=0.0)
    ends: list[float] = []
    for turn in range(3):
        job.begin(ends[-1] if ends else 0.0, 2, 0, 2 * turn)
        ends.append(job.problem_until)
    assert ends == pytest.approx([3.0, 6.0, 9.0], abs=0.1)
