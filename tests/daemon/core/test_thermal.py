"""The thermal filter against boards whose constants are known, and against whatever a sensor may say."""

from __future__ import annotations

import math
import random

import pytest
from denoised.daemon.core.thermal import BOUND, Constants, Thermal, _cut
from hypothesis import given, settings
from hypothesis import strategies as st

PI = Constants(2.0, 2.0, 8.0, 22.0)
CONSTANTS = st.builds(Constants, st.floats(0.2, 4), st.floats(0.5, 10), st.floats(0.5, 20), st.floats(30, 1000))


def run(truth, model, seconds, watts, step=0.0625, noise=0.1, seed=0, room=30.0):
    """Both go on together, the model seeing the other's temperature through a sensor; the truth's state."""
    r, state, true = random.Random(seed), model.state, Thermal(truth, room)
    for t in range(seconds):
        p = watts(t)
        state = true.advance(state, 1.0, p)
        model.predict(1.0, p)
        model.correct(round((state[0] + r.gauss(0, noise)) / step) * step, step, noise)
    return state


@settings(max_examples=30, deadline=None)
@given(CONSTANTS, st.floats(-20, 60), st.floats(0, 20))
def test_it_comes_to_rest_where_ohms_law_of_heat_says(k, room, watts):
    die, sink = Thermal(k, room).advance((room, room), 60 * (k.r1 * k.c1 + (k.r1 + k.r2) * k.c2), watts)
    assert sink == pytest.approx(room + watts * k.r2, rel=0.01, abs=0.05)
    assert die == pytest.approx(sink + watts * k.r1, rel=0.01, abs=0.05)


@given(CONSTANTS, st.floats(20, 60), st.floats(1, 60), st.floats(60, 100))
def test_the_power_that_holds_a_limit_reaches_it_exactly(k, room, seconds, limit):
    model = Thermal(k, room)
    watts = model.holds(limit, seconds)
    assert model.advance(model.state, seconds, watts)[0] == pytest.approx(limit, abs=1e-6 * max(1.0, abs(watts)))


@pytest.mark.parametrize("off", [0.6, 0.8, 1.3, 1.7])
def test_a_board_that_is_not_as_expected_is_learnt_and_foreseen(off):
    truth = Constants(PI.r1 * off, PI.c1 / off, PI.r2 * off, PI.c2 * off)
    model = Thermal(PI, 50.0)
    state = run(truth, model, 900, lambda t: 4.0 if t % 200 < 140 else 1.0)
    ahead = Thermal(truth, 30.0).advance(state, 60.0, 4.0)[0]
    assert model.advance(model.state, 60.0, 4.0)[0] == pytest.approx(ahead, abs=1.0)
    assert model.constants.r1 == pytest.approx(truth.r1, rel=0.2)


@pytest.mark.parametrize("step", [0.0625, 0.55, 1.0])
def test_between_the_steps_of_a_coarse_sensor_the_temperature_is_known_better_than_the_step(step):
    model = Thermal(PI, 50.0)
    state = run(PI, model, 600, lambda t: 3.0 if t % 60 < 40 else 2.0, step=step)
    assert abs(model.die_c - state[0]) < max(0.1, 0.35 * step)
    assert model.die_sd < max(0.1, 0.35 * step)


def test_a_room_that_grows_hot_at_once_is_followed():
    model, r = Thermal(PI, 30.0), random.Random(1)
    state, rooms = (30.0, 30.0), {True: Thermal(PI, 30.0), False: Thermal(PI, 45.0)}
    worst = 0.0
    for t in range(1200):
        state = rooms[t < 600].advance(state, 1.0, 2.0)
        model.predict(1.0, 2.0)
        model.correct(round((state[0] + r.gauss(0, 0.1)) / 0.55) * 0.55, 0.55, 0.1)
        worst = max(worst, abs(model.die_c - state[0])) if t > 300 else 0.0
    assert worst < 0.8
    assert model.rest_c == pytest.approx(45.0, abs=3.0)


@settings(max_examples=60, deadline=None)
@given(
    CONSTANTS, st.lists(st.tuples(st.floats(0, 15), st.floats(0, 50), st.floats(-40, 130)), max_size=30), st.floats(0.001, 2)
)
def test_no_reading_and_no_load_brings_it_out_of_bounds(k, story, step):
    model = Thermal(k, 40.0)
    for dt, watts, temp in story:
        model.predict(dt, watts, seen=watts < 25)
        model.correct(temp, step, 0.1)
        assert all(map(math.isfinite, (*model.x, *(v for row in model.p for v in row))))
        assert all(abs(v - s) <= BOUND + 1e-9 for v, s in zip(model.x[3:6], model.start))
        assert model.constants.c2 >= 2 * model.constants.c1 * (1 - 1e-9)
        assert 0 < model.die_sd < 200


@given(st.floats(-9, 9), st.floats(0.001, 20))
def test_a_cut_gaussian_lies_within_the_cut_and_is_narrower(low, width):
    mean, var = _cut(low, low + width)
    assert low - 1e-6 <= mean <= low + width + 1e-6
    assert 0 <= var <= min(1.0, width * width / 4) + 1e-6


def test_blind_it_grows_less_sure_and_then_never_ends_up_nowhere():
    model = Thermal(PI, 50.0)
    run(PI, model, 300, lambda t: 2.0)
    before = model.die_sd
    model.predict(60.0, 2.0, seen=False)
    minute = model.die_sd
    model.predict(3600.0, 2.0, seen=False)
    assert before < minute < model.die_sd < 60
