from __future__ import annotations

import pytest
from denoised.daemon.core.frontier import Point, Quality, Speed, costs, frontier, points
from hypothesis import given
from hypothesis import strategies as st

COST = st.sampled_from([0.0, 0.5, 1.0, 1.01, 2.0, 3.0, 50.0]) | st.floats(0, 1e6)
POINTS = st.lists(
    st.builds(Point, st.sampled_from(["fp32", "int8"]), st.just("ddim"), st.integers(1, 50), st.just(8), st.just(1),
              step_ms=st.just(1.0), sample_ms=COST, energy_j=COST, distance=COST),
    max_size=30,
)  # fmt: skip


def at_least_as_good(a, b):
    return all(x <= y for x, y in zip(costs(a), costs(b)))


@given(POINTS)
def test_every_point_has_one_on_the_frontier_that_is_at_least_as_good(candidates):
    best = frontier(candidates)
    assert set(best) <= set(candidates)
    assert all(any(at_least_as_good(b, p) for b in best) for p in candidates)


@given(POINTS)
def test_no_point_of_the_frontier_dominates_another(candidates):
    best = frontier(candidates)
    assert not [(a, b) for a in best for b in best if a is not b and at_least_as_good(a, b)]


@given(POINTS, st.randoms())
def test_the_frontier_does_not_depend_on_the_order_in_which_points_came(candidates, random):
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert [costs(p) for p in frontier(shuffled)] == [costs(p) for p in frontier(candidates)]


@given(POINTS)
def test_the_frontier_of_a_frontier_is_itself(candidates):
    best = frontier(candidates)
    assert frontier(best) == best
    assert [costs(p)[0] for p in best] == sorted(costs(p)[0] for p in best)


def point(sample_ms, energy_j, distance, variant="fp32"):
    return Point(variant, "ddim", 8, 8, 1, 1.0, sample_ms, energy_j, distance)


def test_a_point_that_is_worse_in_all_is_dropped_and_one_that_is_better_in_one_stays():
    fast, frugal, worse = point(10, 2, 0.1), point(20, 1, 0.1), point(30, 3, 0.2)
    assert frontier([worse, frugal, fast]) == (fast, frugal)


def test_differences_within_the_noise_bring_no_point_to_the_frontier():
    fast, same = point(10.0, 1.0, 0.1), point(12.0, 1.2, 0.1 * (1 - 1e-4), "fp16")
    assert frontier([fast, same]) == (fast,)


def test_points_are_the_product_of_what_was_measured_for_the_same_variant_and_sampler():
    qualities = [
        Quality("fp32", "ddim", 4, 0.3, 2.0),
        Quality("fp32", "ddim", 8, 0.1, 1.0),
        Quality("int8", "ddim", 4, 0.4, 5.0),
    ]
    speeds = [Speed("fp32", "ddim", 8, 1, 16.0, 5.0), Speed("fp32", "dpmpp_2m", 8, 1, 16.0, 5.0)]
    made = points(qualities, speeds)
    assert [(p.variant, p.steps, p.sample_ms) for p in made] == [("fp32", 4, 9.0), ("fp32", 8, 17.0)]  # 1 ms outside the loop
    assert [p.energy_j for p in made] == pytest.approx([0.045, 0.085])
    assert [p.distance for p in made] == [0.3, 0.1]


def test_points_of_one_sampler_with_other_choices_are_not_mixed():
    """Guidance doubles the calls: its time must not be multiplied with the distance without it."""
    qualities = [Quality("fp32", "ddim", 4, 0.3, 0.0), Quality("fp32", "ddim", 4, 0.1, 0.0, shipped=2)]
    speeds = [Speed("fp32", "ddim", 1, 1, 10.0, 5.0), Speed("fp32", "ddim", 1, 1, 20.0, 5.0, shipped=2)]
    assert [(p.shipped, p.sample_ms, p.distance) for p in points(qualities, speeds)] == [(0, 40.0, 0.3), (2, 80.0, 0.1)]
