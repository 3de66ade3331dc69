from __future__ import annotations

import pytest
from denoised.daemon.core.anytime import Anytime


def test_items_share_the_time_that_is_left():
    job = Anytime(until=10.0, items=4, turns=4, rest_s=0.0)
    job.begin(0.0, 1, 0, 0)
    assert job.problem_until == pytest.approx(10 / 4, rel=0.02)
    job.begin(8.0, 2, 2, 2)
    assert job.problem_until == pytest.approx(10.0, rel=0.02)


def test_several_problems_about_the_same_items_share_it_too():
    job = Anytime(until=9.0, items=2, turns=6, rest_s=0.0)
    ends = []
    for turn in range(3):
        job.begin(ends[-1] if ends else 0.0, 2, 0, 2 * turn)
        ends.append(job.problem_until)
    assert ends == pytest.approx([3.0, 6.0, 9.0], abs=0.1)


def test_what_comes_late_has_no_time():
    job = Anytime(until=1.0, items=1, turns=1, rest_s=0.5)
    job.begin(0.9, 1, 0, 0)
    assert job.enough(0.9, 0.01)
