"""TensorRT's side of the engine protocol, on a GPU that knows the rules: what is told when, threads, errors, memory."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
from denoised.engines import noise, trt_library
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.engines.denoise import Checkpoint, Known, denoise, start
from denoised.engines.denoiser import Guidance
from denoised.engines.engine import EngineLoadError, EngineLost, EngineNotBuilt, EngineRunError, open_engine
from denoised.engines.onnxrt import OnnxRuntimeEngine
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import cosine
from denoised.engines.trt import TensorRtEngine
from denoised.engines.trt_build import build, find_plan
from denoised.engines.trt_plans import read_plan
from onnx import TensorProto, helper, numpy_helper

SIGMAS = cosine(6)
PREDICTION = "v"


@pytest.fixture
def guided_onnx(tmp_path):
    """x (batch, 4), t (batch,), label (batch, 2) -> out = tanh(x @ W + t + label @ V)."""
    rng = np.random.default_rng(1)
    w, v = (numpy_helper.from_array(rng.standard_normal((n, 4)).astype(np.float32) / 2, k) for n, k in ((4, "w"), (2, "v")))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("MatMul", ["label", "v"], ["lv"]),
        helper.make_node("Unsqueeze", ["t", "axes"], ["tt"]),
        helper.make_node("Add", ["xw", "tt"], ["a"]),
        helper.make_node("Add", ["a", "lv"], ["b"]),
        helper.make_node("Tanh", ["b"], ["out"]),
    ]
    inputs = [("x", ["batch", 4]), ("t", ["batch"]), ("label", ["batch", 2])]
    graph = helper.make_graph(
        nodes,
        "guided",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 4])],
        [w, v, numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    path = tmp_path / "guided.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def opened(onnx_file, cache):
    build(onnx_file, cache, trt_library.known_gpu())
    return open_engine(onnx_file, "tensorrt", cache=cache)


@pytest.fixture
def engine(fake_gpu, guided_onnx, plan_cache):
    engine = opened(guided_onnx, plan_cache)
    yield engine
    if not fake_gpu.poisoned:
        engine.close()


def feeds(batch=2, value=1.0):
    return {
        "x": np.full((batch, 4), value, np.float32),
        "t": np.full(batch, 0.5, np.float32),
        "label": np.ones((batch, 2), np.float32),
    }


def unit(batch, step=0):
    return noise.batch(7, range(batch), step, (4,))


def trajectory(engine, sampler="ddim", batch=2, at=None, conditions=1, **choices):
    """Every checkpoint, its arrays copied."""
    labels = [np.full((batch, 2), 1.0 - i, np.float32) for i in range(conditions)]
    bound = engine.bind(unit(batch), [{"label": label} for label in labels])
    copied = []
    first = at or start(unit(batch), SIGMAS)
    for point in denoise(bound, SAMPLERS[sampler], PREDICTION, SIGMAS, first, lambda step: unit(batch, step), **choices):
        memory = tuple(np.array(array) for array in point.memory) if point.memory else None
        copied.append(Checkpoint(point.step, np.array(point.x), memory))
    bound.close()
    return copied


@pytest.mark.parametrize("unified", [False, True], ids=["discrete", "unified"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trajectory_on_the_gpu_is_the_one_of_the_cpu(fake_gpu, guided_onnx, plan_cache, sampler, unified):
    fake_gpu.unified = unified
    engine = opened(guided_onnx, plan_cache)
    cpu = OnnxRuntimeEngine(guided_onnx)
    for here, there in zip(trajectory(cpu, sampler), trajectory(engine, sampler), strict=True):
        np.testing.assert_allclose(there.x, here.x, rtol=1e-4, atol=1e-5)
    engine.close()


@pytest.mark.parametrize("gpu", ["fake_gpu", "real_gpu"])
@pytest.mark.parametrize("name", ["surface-defects", "plant-imputer"])
def test_a_shipped_network_answers_as_it_does_on_onnxruntime(request, plan_cache, name, gpu):
    request.getfixturevalue(gpu)
    file = read_bundle(SHIPPED / name).file("denoiser.onnx")
    engine, cpu, rng = opened(file, plan_cache), OnnxRuntimeEngine(file), np.random.default_rng(0)
    sizes: dict = {symbol: 3 for spec in cpu.inputs.values() for symbol in spec.shape if isinstance(symbol, str)}
    shapes = {name: [sizes.get(d, d) for d in spec.shape] for name, spec in cpu.inputs.items()}
    fed = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    for _ in range(4):
        np.testing.assert_allclose(engine.run(fed)["out"], cpu.run(fed)["out"], rtol=1e-3, atol=1e-3)
    x, condition = fed["x"], {name: array for name, array in fed.items() if name not in "xt"}
    ends = []
    for each in (cpu, engine):
        bound = each.bind(x, [condition])
        *_, last = denoise(bound, SAMPLERS["dpmpp_2m"], PREDICTION, SIGMAS, start(x, SIGMAS))
        ends.append(last.x)
        bound.close()
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-2, atol=1e-2)
    engine.close()


@pytest.mark.parametrize("n_out", range(1, 5))
@pytest.mark.parametrize("n_in", range(1, 9))
def test_the_kernel_for_so_many_arrays_is_the_weighted_sums_in_their_order(engine, n_in, n_out):
    rng = np.random.default_rng(n_in * 10 + n_out)
    bound = engine.bind(unit(3), [{"label": np.zeros((3, 2), np.float32)}])
    given = [rng.standard_normal((3, 4)).astype(np.float32) for _ in range(n_in)]
    ins = [bound.array() for _ in range(n_in)]
    for array, values in zip(ins, given):
        bound.store(array, values)
    outs = [*(bound.array() for _ in range(n_out - 1)), ins[int(rng.integers(n_in))]]
    weights = [[float(w) for w in rng.choice([0.0, 1.0, -1.0, 0.5, -2.5], n_in + j)] for j in range(n_out)]
    want: list[np.ndarray] = []
    for row in weights:
        want.append(sum((w * a for w, a in zip(row, [*given, *want])), np.zeros((3, 4))))
    bound.prepare(outs, weights, ins)()
    for out, expected in zip(outs, want):
        np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-4, atol=1e-4)


def test_guidance_and_a_known_region_are_those_of_the_cpu(engine, guided_onnx):
    where = np.zeros((2, 4), np.float32)
    where[:, 1] = 1
    choices = {"guidance": Guidance(2.0), "known": Known(np.full((2, 4), 0.3, np.float32), unit(2, 9), where)}
    here = trajectory(OnnxRuntimeEngine(guided_onnx), "heun", conditions=2, **choices)
    there = trajectory(engine, "heun", conditions=2, **choices)
    np.testing.assert_allclose(there[-1].x, here[-1].x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there[-1].x[:, 1], 0.3, rtol=1e-6)
    assert not np.allclose(there[-1].x, trajectory(engine, "heun", conditions=2, guidance=Guidance(2.0))[-1].x)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_going_on_from_a_checkpoint_gives_the_bytes_of_never_having_stopped(engine, sampler, stop):
    whole = trajectory(engine, sampler)
    assert trajectory(engine, sampler, at=whole[stop - 1])[-1].x.tobytes() == whole[-1].x.tobytes()


def test_a_step_is_one_launch_of_the_network_and_one_kernel_and_x_stays_where_it_is(engine, fake_gpu):
    trajectory(engine)  # graphs and kernels are there afterwards
    before = dict(fake_gpu.launches)
    bound = engine.bind(unit(2), [{"label": np.ones((2, 2), np.float32)}])
    *_, last = denoise(bound, SAMPLERS["ddim"], PREDICTION, SIGMAS, start(unit(2), SIGMAS))
    bound.close()
    did = {what: fake_gpu.launches[what] - before[what] for what in before}
    steps = len(SIGMAS) - 1
    assert did == {"execute": steps, "graph": steps, "kernel": steps, "upload": 2, "download": 1}
    assert last.x.shape == (2, 4)


def test_trajectories_inside_each_other_give_the_bytes_of_one_alone(engine):
    alone = {batch: trajectory(engine, "dpmpp_2m", batch)[-1].x for batch in (2, 3)}
    outer = engine.bind(unit(2), [{"label": np.ones((2, 2), np.float32)}])
    for point in denoise(outer, SAMPLERS["dpmpp_2m"], PREDICTION, SIGMAS, start(unit(2), SIGMAS)):
        if point.step in (2, 4):
            assert trajectory(engine, "dpmpp_2m", 3)[-1].x.tobytes() == alone[3].tobytes()
            assert trajectory(engine, "dpmpp_2m", 2)[-1].x.tobytes() == alone[2].tobytes()
            engine.run(feeds(5))
    outer.close()
    assert np.array(point.x).tobytes() == alone[2].tobytes()


def test_buffers_of_ended_trajectories_are_used_again_and_do_not_pile_up(engine, fake_gpu):
    trajectory(engine, batch=2)
    used = fake_gpu.used
    trajectory(engine, batch=2)
    assert fake_gpu.used == used
    for batch in range(1, 9):
        trajectory(engine, batch=batch)
    most = fake_gpu.used
    for batch in range(1, 9):
        trajectory(engine, batch=batch)
    assert fake_gpu.used == most


def test_shapes_and_addresses_are_told_only_when_they_change(engine):
    for value in range(6):
        engine.run(feeds(2, value))
    told = engine._context.told
    assert told == {"shape": 3, "address": 4}
    engine.run(feeds(1))
    assert told == {"shape": 6, "address": 4}


def test_a_call_becomes_a_graph_and_gives_the_same_bytes(engine, fake_gpu):
    plain = engine.run(feeds())["out"].tobytes()
    for _ in range(4):
        assert engine.run(feeds())["out"].tobytes() == plain
    assert fake_gpu.launches["graph"] == 3
    for batch in (3, 2):  # other shapes: nothing recorded is true any more
        engine.run(feeds(batch))
    assert fake_gpu.launches["graph"] == 3
    assert engine.run(feeds())["out"].tobytes() == plain


def test_graphs_of_ended_trajectories_do_not_pile_up(engine, fake_gpu):
    def graphs():
        return sum(graph["live"] for graph in fake_gpu.graphs)

    def inside():
        outer = engine.bind(unit(2), [{"label": np.ones((2, 2), np.float32)}])
        for point in denoise(outer, SAMPLERS["ddim"], PREDICTION, SIGMAS, start(unit(2), SIGMAS)):
            if point.step == 4:
                trajectory(engine, batch=2)
        outer.close()

    inside()
    most = graphs()
    for _ in range(4):
        inside()
    assert 0 < graphs() <= most


def test_an_abandoned_trajectory_leaves_the_next_one_as_it_is(engine):
    alone = trajectory(engine)[-1].x.tobytes()
    abandoned = engine.bind(unit(2, 5), [{"label": np.full((2, 2), 9, np.float32)}])
    steps = denoise(abandoned, SAMPLERS["ddim"], PREDICTION, SIGMAS, start(unit(2, 5), SIGMAS))
    next(steps)
    del steps
    abandoned.close()
    assert trajectory(engine)[-1].x.tobytes() == alone


def test_a_network_that_is_still_being_compiled_is_called_until_it_can_be_recorded(engine, fake_gpu):
    answers = iter([False, False, True])
    engine._context.is_stream_capturable = lambda handle: next(answers)
    plain = [engine.run(feeds())["out"].tobytes() for _ in range(6)]
    assert len(set(plain)) == 1 and fake_gpu.launches["graph"] == 2


def test_shapes_that_come_and_go_are_called_once_before_they_are_recorded(engine, fake_gpu):
    for batch in (2, 2, 3, 2, 2, 3, 2):
        engine.run(feeds(batch))
    assert fake_gpu.launches["graph"] == 0
    for _ in range(3):
        engine.run(feeds(2))
    assert fake_gpu.launches["graph"] == 2


def test_without_graphs_it_calls(engine, fake_gpu):
    fake_gpu.can_capture = False
    plain = engine.run(feeds())["out"].tobytes()
    for _ in range(4):
        assert engine.run(feeds())["out"].tobytes() == plain
    assert fake_gpu.launches["graph"] == 0


def test_one_memory_for_gpu_and_cpu_needs_no_copies(fake_gpu, small_onnx, plan_cache):
    fake_gpu.unified = True
    engine = opened(small_onnx, plan_cache)
    given = {"x": np.ones((2, 4), np.float32), "t": np.zeros(2, np.float32)}
    np.testing.assert_allclose(engine.run(given)["out"], OnnxRuntimeEngine(small_onnx).run(given)["out"], rtol=1e-6)
    assert fake_gpu.launches["upload"] == fake_gpu.launches["download"] == 0
    engine.close()


def test_a_shape_outside_the_plan_is_named_with_what_it_takes(engine):
    engine.run(feeds())
    with pytest.raises(EngineRunError, match=r"'x': found shape \(17, 4\), this plan takes \(1, 4\) to \(16, 4\): .*profile"):
        engine.run(feeds(17))
    assert engine.run(feeds())["out"].shape == (2, 4)


def test_another_thread_is_refused_and_nothing_leaks(engine, fake_gpu):
    engine.run(feeds())
    refused = []

    def elsewhere():
        for use in (lambda: engine.run(feeds()), lambda: engine.bind(unit(2), [{}]), engine.close):
            try:
                use()
            except EngineRunError as e:
                refused.append(str(e))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(refused) == 3 and all("belongs to the thread that opened it" in words for words in refused)
    assert engine.run(feeds())["out"].shape == (2, 4)


def test_every_thread_can_have_an_engine_of_its_own(engine, fake_gpu, guided_onnx, plan_cache):
    results, stacks = [], []

    def elsewhere():
        mine = open_engine(guided_onnx, "tensorrt", cache=plan_cache)
        results.append(mine.run(feeds())["out"].copy())
        mine.close()
        stacks.append(list(fake_gpu.stack))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert stacks == [[]]  # else pycuda would end the process
    assert results[0].tobytes() == engine.run(feeds())["out"].tobytes()


def test_an_error_that_passes_is_told_and_the_engine_goes_on(engine, fake_gpu):
    engine.run(feeds())
    fake_gpu.total = fake_gpu.used + 300
    with pytest.raises(EngineRunError, match="out of memory") as failed:
        engine.bind(unit(16), [{"label": np.ones((16, 2), np.float32)}])
    assert not isinstance(failed.value, EngineLost)
    assert fake_gpu.stack == []
    fake_gpu.total = 1 << 32
    assert len(trajectory(engine, batch=16)) == len(SIGMAS) - 1


def test_an_error_that_stays_says_that_the_process_must_end(engine, fake_gpu):
    bound = engine.bind(unit(2), [{"label": np.ones((2, 2), np.float32)}])
    fake_gpu.blocks[-1].live = False  # as a wild address would
    with pytest.raises(EngineLost, match="illegal memory access.*refuses all further work of this process"):
        for _ in denoise(bound, SAMPLERS["ddim"], PREDICTION, SIGMAS, start(unit(2), SIGMAS)):
            np.array(bound.slots[1])
    with pytest.raises(EngineLost):
        engine.run(feeds())
    assert fake_gpu.stack == []


def test_a_failed_call_on_a_lost_gpu_says_so_at_once(engine, fake_gpu):
    engine.run(feeds())
    bound = engine.bind(unit(2), [{"label": np.ones((2, 2), np.float32)}])

    def execute_async_v3(stream_handle):
        fake_gpu.poisoned = "unspecified launch failure"
        return False

    engine._context.execute_async_v3 = execute_async_v3
    with pytest.raises(EngineLost, match="failed in a step.*refuses all further work of this process .*launch failure"):
        bound.call(0, 0.5)


def test_a_plan_for_which_memory_is_short_is_kept(fake_gpu, guided_onnx, plan_cache, monkeypatch):
    plan = build(guided_onnx, plan_cache, trt_library.known_gpu())
    trt = trt_library.load_library().trt

    def deserialize_cuda_engine(self, data):
        trt._complain(self._logger, "Error Code 2: OutOfMemory (Requested size was 33 bytes): CUDA out of memory")

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", deserialize_cuda_engine)
    with pytest.raises(EngineLoadError, match="out of memory; end what else uses this memory"):
        open_engine(guided_onnx, "tensorrt", cache=plan_cache)
    assert find_plan(guided_onnx, plan_cache, trt_library.known_gpu()) == plan


def test_a_network_that_does_not_fit_is_refused_with_numbers(fake_gpu, guided_onnx, plan_cache):
    build(guided_onnx, plan_cache, trt_library.known_gpu())
    fake_gpu.total = 600
    with pytest.raises(EngineLoadError, match=r"the network takes 0 MB, free are 0 MB; use a smaller batch"):
        open_engine(guided_onnx, "tensorrt", cache=plan_cache)
    assert find_plan(guided_onnx, plan_cache, trt_library.known_gpu())


def test_what_is_not_built_yet_is_said_and_not_waited_for(fake_gpu, guided_onnx, plan_cache):
    with pytest.raises(EngineNotBuilt, match=r"guided.onnx: no plan of it for tensorrt 10.3.0 on Fake Orin in .* yet"):
        open_engine(guided_onnx, "tensorrt", cache=plan_cache)


def test_a_truncated_plan_is_deleted_and_can_be_built_again(fake_gpu, guided_onnx, plan_cache):
    plan = build(guided_onnx, plan_cache, trt_library.known_gpu())
    plan.write_bytes(plan.read_bytes()[:-9])
    with pytest.raises(EngineLoadError, match="damaged.*deleted, it is built again"):
        open_engine(guided_onnx, "tensorrt", cache=plan_cache)
    with pytest.raises(EngineNotBuilt):
        open_engine(guided_onnx, "tensorrt", cache=plan_cache)
    engine = opened(guided_onnx, plan_cache)
    assert engine.run(feeds())["out"].shape == (2, 4)
    engine.close()


def test_a_plan_that_tensorrt_refuses_is_built_again_once_and_then_given_up(fake_gpu, guided_onnx, plan_cache, monkeypatch):
    trt = trt_library.load_library().trt
    sent = trt.IHostMemory(b"fake plan " + bytes(64))
    monkeypatch.setattr(trt.Builder, "build_serialized_network", lambda *args: sent)
    for _ in range(2):
        with pytest.raises(EngineLoadError, match="refuses it: Serialization assertion.*; deleted, to be built again"):
            opened(guided_onnx, plan_cache)
    assert list(plan_cache.glob("*.plan")) == []
    for again in (lambda: build(guided_onnx, plan_cache, trt_library.known_gpu()), lambda: opened(guided_onnx, plan_cache)):
        with pytest.raises(EngineLoadError, match=r"refused this plan 2 times.*delete .*\.json to try once more"):
            again()


def test_another_tensorrt_finds_no_plan_and_the_old_one_stays(fake_gpu, guided_onnx, plan_cache, monkeypatch):
    old = build(guided_onnx, plan_cache, trt_library.known_gpu())
    monkeypatch.setattr(trt_library.load_library().trt, "__version__", "10.13.3.9")
    trt_library.load_library.cache_clear()
    with pytest.raises(EngineNotBuilt, match="tensorrt 10.13.3.9"):
        open_engine(guided_onnx, "tensorrt", cache=plan_cache)
    with pytest.raises(EngineLoadError, match="built by tensorrt 10.3.0, here is tensorrt 10.13.3.9"):
        TensorRtEngine(old)
    new = build(guided_onnx, plan_cache, trt_library.known_gpu())
    assert old.is_file() and new != old and read_plan(new)[1].identity.library == "tensorrt 10.13.3.9"
