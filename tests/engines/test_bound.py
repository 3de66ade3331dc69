"""What the loop is given by an engine: numpy's arithmetic over buffers that are made once."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from denoised.engines import noise
from denoised.engines.denoise import denoise, start
from denoised.engines.engine import open_engine
from denoised.engines.host import CallableBound
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import cosine
from denoised.plugins.kind import Problem
from denoised.plugins.play import solve, walk

SHAPE = (1, 4, 64, 64)
SIZE = 4 * 64 * 64 * 4
"""Bytes of an x of that shape in float32."""
WEIGHTS = [0.0, 1.0, -1.0, 0.5, -2.5]


@pytest.mark.parametrize("seed", range(30))
def test_a_prepared_mix_is_the_weighted_sums_in_their_order(seed):
    rng = np.random.default_rng(seed)
    bound = CallableBound([], np.zeros((2, 3)))
    arrays = [bound.array() for _ in range(6)]
    for array in arrays:
        bound.store(array, rng.standard_normal((2, 3)))
    ins, outs = arrays[:3], [arrays[4], arrays[5], arrays[int(rng.integers(4))]]
    weights = [rng.choice(WEIGHTS, len(ins) + j) for j in range(len(outs))]
    want: list[np.ndarray] = []
    for row in weights:
        want.append(sum((w * a for w, a in zip(row, [*(a.copy() for a in ins), *want])), np.zeros((2, 3))))
    bound.prepare(outs, [[float(w) for w in row] for row in weights], ins)()
    for out, expected in zip(outs, want):
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


def trace(method, steps=12):
    """Bytes at the peak of each step over what stood before it, after the first steps."""
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    answer, here = x * np.float32(0.1), np.empty(SHAPE, np.float32)
    bound, peaks = CallableBound([lambda x, t: answer], x), []
    sigmas = cosine(steps)
    tracemalloc.start()
    try:
        before = 0
        for at in denoise(bound, method, "v", sigmas, start(x, sigmas), lambda i: noise.batch(1, [0], i, SHAPE[1:], here)):
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            gc.collect()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            step = at.step
    finally:
        tracemalloc.stop()
    assert step == steps
    return peaks[3:-1]  # the last step gives its x away as an array of the receiver's


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_array_of_x_s_size_is_made_in_a_step(name):
    assert max(trace(SAMPLERS[name])) < SIZE / 4


def test_the_measurement_sees_an_array_that_is_made(monkeypatch):
    store = CallableBound.store
    monkeypatch.setattr(CallableBound, "store", lambda self, array, host: store(self, array, host.copy()))
    assert min(trace(SAMPLERS["ddpm"])) >= SIZE


@pytest.mark.parametrize(
    ("name", "arrays"),
    [("euler", 0), ("ddim", 0), ("gaussian_exact", 0), ("ddpm", 1), ("dpmpp_2m", 2), ("heun", 2), ("unipc", 5)],
)
def test_a_loop_takes_the_network_s_own_two_arrays_and_few_more(name, arrays):
    x, sigmas = np.zeros(SHAPE, np.float32), cosine(8)
    tracemalloc.start()
    try:
        bound = CallableBound([lambda x, t: x], x)
        for _ in denoise(bound, SAMPLERS[name], "v", sigmas, start(x, sigmas), lambda step: x):
            held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # with the start and the result, which are the caller's
    assert held / SIZE == pytest.approx(2 + arrays + 2, abs=0.7)


def test_a_trajectory_that_is_interrupted_by_another_of_the_same_shape_goes_on_unharmed(small_onnx):
    engine, sigmas = open_engine(small_onnx), cosine(6)
    problems = [Problem(noise.batch(seed, range(2), 0, (4,)), {}, (0, 1)) for seed in (1, 2)]
    alone = [solve(walk(problem, engine, sigmas, "unipc", "v")) for problem in problems]
    for at in walk(problems[0], engine, sigmas, "unipc", "v"):
        if at.step in (2, 4):
            assert solve(walk(problems[1], engine, sigmas, "unipc", "v")).tobytes() == alone[1].tobytes()
    assert at.x.tobytes() == alone[0].tobytes()


def test_a_start_in_another_memory_layout_is_the_same_start(small_onnx):
    engine, sigmas, x = open_engine(small_onnx), cosine(3), noise.batch(1, range(3), 0, (4,))
    rows = (0, 1, 2)
    plain, turned = (solve(walk(Problem(each, {}, rows), engine, sigmas, "ddpm", "v")) for each in (x, np.asfortranarray(x)))
    assert plain.tobytes() == turned.tobytes()


def test_buffers_of_shapes_that_are_not_seen_any_more_go_at_once(small_onnx):
    engine, sigmas = open_engine(small_onnx), cosine(2)
    gc.collect()
    gc.disable()
    try:
        seen = []
        for rows in range(1, 9):
            bound = engine.bind(np.zeros((rows, 4), np.float32), [{}])
            for _ in denoise(bound, SAMPLERS["dpmpp_2m"], "v", sigmas, start(np.ones((rows, 4), np.float32), sigmas)):
                pass
            seen.append(weakref.ref(bound))
            bound.close()
            del bound
        assert [ref() is not None for ref in seen] == [False] * 4 + [True] * 4
        engine.close()
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()
