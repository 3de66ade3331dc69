"""The hull of what is worth running."""

from __future__ import annotations

import pytest
from denoised.daemon.core.choice import IDLE, Option, hull, pairs, reach, slope, spend
from denoised.daemon.core.power import clock_power
from hypothesis import given
from hypothesis import strategies as st

OPTIONS = st.lists(st.builds(Option, st.floats(0.01, 50), st.floats(0.05, 30), st.floats(0, 1)), min_size=1, max_size=20)
CLOCKS = (0.5, 0.75, 1.0)


def watts(w, clock):
    return w * clock_power(clock, 0.65)


@given(OPTIONS, st.floats(0, 1))
def test_no_pair_that_is_good_enough_lies_above_the_hull(options, floor):
    candidates = pairs(options, floor, CLOCKS, watts)
    best = hull(candidates)
    assert best[0] is IDLE
    for pair in candidates:
        assert pair.rate <= spend(best, pair.watts).rate * (1 + 1e-6) + 1e-9


@given(OPTIONS)
def test_along_the_hull_each_watt_buys_less(options):
    best = hull(pairs(options, 0.0, CLOCKS, watts))
    slopes = [slope(a, b) for a, b in zip(best, best[1:])]
    assert all(a > b for a, b in zip(slopes, slopes[1:]))


@given(OPTIONS, st.floats(0, 40))
def test_a_budget_is_kept_and_a_rate_is_reached(options, value):
    best = hull(pairs(options, 0.0, CLOCKS, watts))
    assert spend(best, value).watts <= value + 1e-9
    assert reach(best, value).rate >= min(value, best[-1].rate) - 1e-9


@given(OPTIONS, st.floats(0, 1))
def test_the_floor_is_kept_where_it_can_be(options, floor):
    chosen = {p.option for p in pairs(options, floor, CLOCKS, watts)}
    good = {i for i, o in enumerate(options) if o.quality >= floor - 1e-9}
    best = max(o.quality for o in options)
    assert chosen == (good or {i for i, o in enumerate(options) if o.quality >= best - 1e-9})


def test_a_lower_clock_comes_before_a_pause():
    best = hull(pairs([Option(1.0, 4.0, 1.0)], 0.0, CLOCKS, watts))
    mix = spend(best, 2.0)
    assert mix.low is not IDLE
    assert mix.rate > 2.0 / 4.0
    assert mix.rate == pytest.approx(mix.low.rate + mix.share * (mix.high.rate - mix.low.rate))
