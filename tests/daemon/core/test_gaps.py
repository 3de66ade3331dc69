from __future__ import annotations

import math

import pytest
from denoised.config.tree import SensorGroup, Tag
from denoised.daemon.core.gaps import Group


def group(window=16, period=1.0, max_latency=0.4, **tag):
    tags = {"a": Tag("p/a", **tag), "b": Tag("p/b")}
    return Group("g", SensorGroup(tags=tags, period=period, window=window, max_latency=max_latency), 100.0)


def answer(repair, value=7.0, uncertain=()):
    rows = [[value if v is None else v for v in row] for row in repair.values]
    return {"values": rows, "quantiles": {"0.05": rows, "0.95": rows}, "uncertain": list(uncertain)}


def test_a_measurement_is_published_at_once_as_good():
    sample = group().measure("a", 3, 100.5)
    assert sample.message() == {"t": "1970-01-01T00:01:40.000Z", "value": 3.0, "quality": "good"}


def test_a_slot_that_is_complete_needs_no_repair():
    g = group()
    g.measure("a", 1.0, 100.5)
    g.measure("b", 2.0, 100.6)
    assert g.close(101.3) is None


def test_a_gap_is_imputed_half_a_latency_after_its_slot_ended():
    g = group()
    g.measure("a", 1.0, 100.5)
    assert g.close(101.1) is None
    assert g.due == pytest.approx(101.2)
    repair = g.close(101.2)
    assert repair.values == [[1.0, None]]
    (sample,) = g.repaired(repair, answer(repair))
    assert sample.message() == {"t": "1970-01-01T00:01:40.000Z", "value": 7.0, "quality": "imputed", "q05": 7.0, "q95": 7.0}


def test_each_slot_is_closed_once():
    g = group()
    g.measure("a", 1.0, 100.5)
    assert g.close(101.3) is not None
    assert g.close(101.3) is None
    assert g.close(102.3) is not None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "12", True, [1.0], -6.0, 6.0])
def test_what_is_no_plausible_number_is_a_gap(value):
    g = group(low=-5.0, high=5.0)
    assert g.measure("a", value, 100.5) is None
    g.measure("b", 1.0, 100.5)
    assert g.close(101.3).values == [[None, 1.0]]


def test_a_stuck_sensor_is_a_gap_until_it_moves():
    g = group(stuck_after=3)
    usable = [g.measure("a", v, 100.5 + i) is not None for i, v in enumerate([1, 1, 1, 1, 1, 2, 2])]
    assert usable == [True, True, True, False, False, True, True]


def test_late_measurement_is_published_once_more_as_good_with_its_own_time():
    g = group()
    g.measure("a", 1.0, 100.5)
    repair = g.close(101.3)
    assert [s.quality for s in g.repaired(repair, answer(repair))] == ["imputed"]
    late = g.measure("b", 9.0, 102.5, at=100.7)
    assert (late.at, late.value, late.quality) == (100.0, 9.0, "good")
    assert g.late == 1
    assert g.measure("b", 9.5, 102.6, at=100.8) is None


@pytest.mark.parametrize("period", [0.01, 0.1, 0.2, 0.3, 1.0, 60.0])
def test_the_time_of_a_sample_is_in_its_own_slot(period):
    """A late measurement that carries the very `t` of its imputation must not land one slot before it."""
    first = math.ceil(1.8e9 / period)
    for number in range(first, first + 50):
        g = Group("g", SensorGroup(tags={"a": Tag("p/a")}, period=period, max_latency=0.4), number * period)
        published = round(number * period, 3)
        sample = g.measure("a", 1.0, (number + 0.5) * period, published)
        assert sample is not None and sample.at == number * period


def test_a_measurement_that_beats_the_imputation_is_not_published_over():
    g = group()
    g.measure("a", 1.0, 100.5)
    repair = g.close(101.3)
    g.measure("b", 9.0, 101.35, at=100.9)
    assert g.repaired(repair, answer(repair)) == []


def test_a_gap_that_nobody_could_impute_is_said_to_be_bad():
    g = group()
    g.measure("a", 1.0, 100.5)
    (sample,) = g.unrepaired(g.close(101.3))
    assert (sample.tag, sample.value, sample.quality) == ("b", None, "bad")


def test_an_uncertain_tag_is_published_as_uncertain():
    g = group()
    g.measure("a", 1.0, 100.5)
    repair = g.close(101.3)
    assert [s.quality for s in g.repaired(repair, answer(repair, uncertain=["b"]))] == ["uncertain"]


def test_the_window_forgets_the_oldest():
    g = group(window=16)
    for i in range(40):
        g.measure("a", float(i), 100.5 + i)
    repair = g.close(140.3)
    assert len(repair.values) <= 16
    assert repair.values[-1] == [39.0, None]


def test_a_long_silence_starts_afresh():
    g = group(window=16)
    g.measure("a", 1.0, 100.5)
    g.measure("a", 2.0, 500.5)
    assert g.close(501.3).values == [[2.0, None]]
    assert g.close(501.3) is None


@pytest.mark.parametrize("jump", [-50_000.0, 50_000.0])
def test_a_jump_of_the_clock_neither_floods_nor_stops_the_stream(jump):
    g = group()
    g.measure("a", 1.0, 100.5)
    g.close(101.3)
    after = 102.5 + jump
    assert g.measure("a", 2.0, after) is not None
    assert g.close(after + 0.8) is not None
    assert g.due < after + 3


def test_a_time_of_its_own_far_from_now_is_not_used():
    g = group()
    assert g.measure("a", 1.0, 100.5, at=10.0) is None
    assert g.measure("a", 1.0, 100.5, at=10_000.0) is None


def test_an_imputed_value_and_its_band_stay_inside_the_plausible_range():
    g = group(low=0.0, high=5.0)
    g.measure("b", 1.0, 100.5)
    repair = g.close(101.3)
    rows = {"values": [[-3.0, 1.0]], "quantiles": {"0.05": [[-9.0, 1.0]], "0.95": [[99.0, 1.0]]}}
    (sample,) = g.repaired(repair, rows)
    assert (sample.value, sample.q05, sample.q95) == (0.0, 0.0, 5.0)


def test_before_the_first_measurement_nothing_is_said():
    g = group()
    assert g.close(101.3) is None
    assert g.close(102.3) is None
    g.measure("a", 1.0, 102.5)
    assert g.close(103.3).values[-1] == [1.0, None]


def test_gaps_of_a_repair_that_never_came_are_answered_by_the_next():
    g = group()
    g.measure("a", 1.0, 100.5)
    g.close(101.3)
    g.measure("a", 2.0, 101.5)
    late = g.close(102.3)
    assert [(s.tag, s.at) for s in g.repaired(late, answer(late))] == [("b", 100.0), ("b", 101.0)]
    assert g.unrepaired(late) == []


def test_slots_that_ended_while_nobody_looked_are_repaired_together():
    g = group()
    g.measure("a", 1.0, 100.5)
    repair = g.close(103.3)
    assert [(s.tag, s.at) for s in g.repaired(repair, answer(repair))] == [
        ("b", 100.0), ("a", 101.0), ("b", 101.0), ("a", 102.0), ("b", 102.0)
    ]  # fmt: skip
    assert g.gaps == 5
