"""One suite for every engine: what the protocol promises, whatever library stands behind it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from denoised.engines import noise
from denoised.engines.denoise import Checkpoint, denoise, start
from denoised.engines.engine import Engine, EngineLoadError, EngineRunError, EngineUnavailable, open_engine
from denoised.engines.host import over_run
from denoised.engines.onnxrt import OnnxRuntimeEngine
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import cosine
from denoised.engines.standin import StandInEngine
from denoised.engines.trt_build import build
from denoised.engines.trt_library import known_gpu
from denoised.plugins.kind import Problem
from denoised.plugins.play import solve, walk


@pytest.fixture(params=["standin", "onnxruntime", "tensorrt", "tensorrt on this GPU"])
def engine(request, small_onnx, plan_cache):
    if request.param == "standin":
        opened: Engine = StandInEngine((4,))
    elif request.param == "onnxruntime":
        opened = open_engine(small_onnx, "onnxruntime", threads=1)
    else:
        # The first on a GPU of ours that knows the rules and has onnxruntime compute, the second on a real one.
        request.getfixturevalue("fake_gpu" if request.param == "tensorrt" else "real_gpu")
        build(small_onnx, plan_cache, known_gpu())
        opened = open_engine(small_onnx, "tensorrt", cache=plan_cache)
    yield opened
    opened.close()


def feeds(batch=2):
    return {"x": np.ones((batch, 4), np.float32), "t": np.full(batch, 0.5, np.float32)}


def test_a_call_gives_every_output_with_its_shape_and_dtype(engine):
    out = engine.run(feeds(3))
    assert out.keys() == engine.outputs.keys()
    assert out["out"].shape == (3, 4)
    assert out["out"].dtype == np.float32


def test_the_same_call_gives_the_same_bytes(engine):
    first = engine.run(feeds())["out"].copy()
    engine.run({"x": np.zeros((1, 4), np.float32), "t": np.zeros(1, np.float32)})
    assert engine.run(feeds())["out"].tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": np.ones((2, 4), np.float64)}, "'x': expected float32, found float64"),
        ({"x": np.ones((2, 5), np.float32)}, "'x': expected shape"),
        ({"x": np.ones((3, 4), np.float32)}, "'t': expected shape"),
        ({"t": np.ones((2, 1), np.float32)}, "'t': expected shape"),
        ({"y": np.ones(1, np.float32)}, "expected inputs"),
    ],
)
def test_wrong_tensors_are_named_before_the_call(engine, wrong, words):
    with pytest.raises(EngineRunError, match=words):
        engine.run({**feeds(), **wrong})


def test_a_bound_network_answers_as_a_call_does(engine):
    x = noise.batch(1, range(3), 0, (4,))
    bound = engine.bind(x, [{}])
    bound.store(bound.slots[0], x)
    bound.call(0, 0.25)
    want = engine.run({"x": x, "t": np.full(3, 0.25, np.float32)})["out"]
    assert np.asarray(bound.slots[1]).tobytes() == np.asarray(want).tobytes()


def test_bounds_that_are_open_together_share_nothing(engine):
    x = noise.batch(1, range(3), 0, (4,))
    first, second = engine.bind(x, [{}]), engine.bind(x, [{}])
    first.store(first.slots[0], x)
    first.call(0, 0.25)
    answer = np.array(first.slots[1])
    second.store(second.slots[0], 2 * x)
    second.call(0, 0.75)
    assert np.asarray(first.slots[0]).tobytes() == x.tobytes()
    assert np.asarray(first.slots[1]).tobytes() == answer.tobytes()


def test_bound_arithmetic_is_weighted_sums_in_order(engine):
    bound = engine.bind(np.zeros((2, 4), np.float32), [{}])
    x, *others = bound.slots[0], *(bound.array() for _ in range(3))
    values = [noise.batch(seed, range(2), 0, (4,)) for seed in (1, 2, 3)]
    for array, value in zip((x, *others), values):
        bound.store(array, value)
    bound.prepare([others[2], x], [[0.5, -1.0, 0.0], [2.0, 1.0, 0.25, 3.0]], [x, *others[:2]])()
    made = 0.5 * values[0] - values[1]
    np.testing.assert_allclose(np.asarray(others[2]), made, rtol=1e-6, atol=1e-6)
    want = 2 * values[0] + values[1] + 0.25 * values[2] + 3 * made
    np.testing.assert_allclose(np.asarray(x), want, rtol=1e-5, atol=1e-5)


def test_a_masked_mix_writes_where_it_is_told_and_nowhere_else(engine):
    bound = engine.bind(np.zeros((2, 4), np.float32), [{}])
    x, value, where = bound.slots[0], bound.array(), bound.array()
    bound.store(x, np.full((2, 4), 7, np.float32))
    bound.store(value, np.full((2, 4), 3, np.float32))
    bound.store(where, np.array([[0, 1, 0, 1], [1, 0, 0, 0]], np.float32))
    bound.prepare([x], [[2.0]], [value], where)()
    assert np.asarray(x).tolist() == [[7, 6, 7, 6], [6, 7, 7, 7]]


@pytest.mark.parametrize(
    ("x", "condition", "words"),
    [(np.ones((2, 5), np.float32), {}, "'x': expected shape"), (np.ones((2, 4)), {}, "float64")]
    + [(np.ones((2, 4), np.float32), {"y": np.ones(1, np.float32)}, "expected inputs")],
)
def test_wrong_tensors_are_named_when_a_trajectory_is_bound(engine, x, condition, words):
    with pytest.raises(EngineRunError, match=words):
        engine.bind(x, [condition])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_resumed_trajectory_ends_in_the_same_bytes(engine, name):
    problem, sigmas = Problem(noise.batch(3, range(5), 0, (4,)), {}, tuple(range(5))), cosine(8)
    whole = solve(walk(problem, engine, sigmas, name, "v", 3))
    for at in walk(problem, engine, sigmas, name, "v", 3):
        if at.step == 3:
            kept = Checkpoint(3, np.array(at.x), at.memory and tuple(np.array(part) for part in at.memory))
            break
    assert solve(walk(problem, engine, sigmas, name, "v", 3, kept)).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_trajectory_is_the_one_of_calls_one_by_one(engine, name):
    x, sigmas = noise.batch(3, range(3), 0, (4,)), cosine(5)
    points = []
    for bound in (engine.bind(x, [{}]), over_run(engine, x, [{}])):
        steps = denoise(bound, SAMPLERS[name], "v", sigmas, start(x, sigmas), lambda step: noise.batch(3, range(3), step, (4,)))
        points.append([np.array(point.x) for point in steps])
        bound.close()
    np.testing.assert_allclose(points[0], points[1], rtol=1e-4, atol=1e-4)


def test_the_provider_is_said(engine):
    assert engine.provider in ("numpy", "CPUExecutionProvider") or engine.provider.startswith("tensorrt")


def test_a_missing_backend_is_an_error_never_a_substitute(small_onnx):
    with pytest.raises(EngineUnavailable, match="'openvino'.*use engine.backend: onnxruntime"):
        open_engine(small_onnx, "openvino")
    with pytest.raises(EngineUnavailable, match="a folder for what it compiles"):
        open_engine(small_onnx, "tensorrt")


def test_tensorrt_without_a_gpu_is_an_error_that_says_what_to_do(small_onnx, plan_cache, tmp_path, monkeypatch):
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    known_gpu.cache_clear()
    with pytest.raises(EngineUnavailable, match="no NVIDIA driver on this machine.*engine.backend: onnxruntime"):
        open_engine(small_onnx, "tensorrt", cache=plan_cache)
    known_gpu.cache_clear()


def test_a_missing_provider_is_an_error_that_lists_what_is_there(small_onnx):
    with pytest.raises(EngineUnavailable, match="no CUDAExecutionProvider; it offers .*CPUExecutionProvider"):
        OnnxRuntimeEngine(small_onnx, provider="cuda")


def test_a_provider_that_does_not_start_is_an_error_never_a_fall_back(small_onnx, monkeypatch):
    """As where the accelerator's driver is late at boot: the build has the provider, the session comes without it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(EngineUnavailable, match="fell back to CPUExecutionProvider.*set engine.provider: cpu"):
        OnnxRuntimeEngine(small_onnx, provider="cuda")


def test_shapes_that_keep_changing_do_not_fill_the_memory(tmp_path):
    """In a process of its own, whose memory no other test has grown."""
    code = """
import random, resource
import numpy as np
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.engines.engine import open_engine
from denoised.engines.schedules import cosine
from denoised.plugins.kind import Problem
from denoised.plugins.play import solve, walk

bundle, rng = read_bundle(SHIPPED / "plant-imputer"), random.Random(0)
engine = open_engine(bundle.file("denoiser.onnx"))

def one(windows, samples, tags):
    sizes = {"windows": windows, "samples": samples, "tags": tags}
    feeds = {n: np.zeros([sizes.get(d, d) for d in s.shape], s.dtype) for n, s in engine.inputs.items() if n != "t"}
    solve(walk(Problem(feeds.pop("x"), feeds, tuple(range(windows))), engine, cosine(1), "ddim", "v"))

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

one(4, 8, 12)
for n in range(400):
    if n == 100:
        before = resident()
    one(rng.randint(1, 4), rng.randint(1, 8), rng.randint(1, 12))
print(resident() / before)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert float(ran.stdout) < 1.1, ran.stderr


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x09" * 500])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineLoadError, match="broken.onnx"):
        open_engine(path)


def test_a_truncated_file_is_named(small_onnx):
    small_onnx.write_bytes(small_onnx.read_bytes()[:-40])
    with pytest.raises(EngineLoadError, match="small.onnx"):
        open_engine(small_onnx)


def test_an_open_session_leaves_the_process_s_small_numbers_alone(small_onnx):
    """onnxruntime can flush subnormals to zero, but then for the whole thread: measured values would change."""
    open_engine(small_onnx).run(feeds())
    assert sys.float_info.min / 2 > 0
