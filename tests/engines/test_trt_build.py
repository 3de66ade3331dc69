"""Building plans: NVIDIA's own parser and builder through TensorRT-RTX, which needs no GPU; the timing cache with the fake.

What RTX cannot tell is how long a build takes on a board and whether its plan runs: that needs the GPU.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest
from denoised.engines import trt_build, trt_library
from denoised.engines.engine import EngineError, EngineLoadError, TensorSpec
from denoised.engines.trt_build import CANCELLED, BuildCancelled, build, find_plan
from denoised.engines.trt_library import Gpu, load_library
from denoised.engines.trt_plans import identify, read_plan, timing_cache
from onnx import TensorProto, helper

MODELS = Path(__file__).parent.parent.parent / "models"
SHIPPED = sorted(MODELS.glob("*/*.onnx"))
GPU = Gpu("NVIDIA RTX 4000", "8.9", 48, "13.0", False, 1 << 33, 1 << 34)


@pytest.fixture
def rtx(monkeypatch):
    """The process has TensorRT-RTX and nothing else."""
    monkeypatch.setattr(trt_library, "MODULES", ("tensorrt_rtx", "tensorrt_rtx_bindings"))
    load_library.cache_clear()
    if not any(importlib.util.find_spec(name) for name in trt_library.MODULES):
        pytest.skip("TensorRT-RTX is not installed: .venv/bin/pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs")
    yield load_library()
    load_library.cache_clear()


def listening(to, until=10**9):
    """A progress that notes what it is told and goes on for so many times."""

    def progress(share, phase):
        to.append((share, phase))
        return len(to) < until

    return progress


def child(onnx_file, cache, *more, env=None):
    """The builder as the daemon starts it."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "denoised.engines.trt_build",
            str(onnx_file),
            str(cache),
            "--gpu",
            json.dumps(asdict(GPU)),
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_shipped_network_builds_with_the_progress_told(rtx, plan_cache, shipped):
    told: list[Any] = []
    assert find_plan(shipped, plan_cache, GPU) is None
    plan = build(shipped, plan_cache, GPU, {}, listening(told))
    assert find_plan(shipped, plan_cache, GPU) == plan
    data, sidecar = read_plan(plan)
    model = onnx.load(shipped, load_external_data=False)
    assert {s.name for s in sidecar.inputs} == {i.name for i in model.graph.input}
    assert {s.name for s in sidecar.outputs} == {o.name for o in model.graph.output}
    assert len(data) > 10_000 and sidecar.identity.library == rtx.name
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1 and len(set(shares)) > 10
    assert len({phase for _, phase in told}) > 3


def test_there_are_networks_to_build():
    assert len(SHIPPED) >= 3


def test_free_dimensions_are_called_as_in_the_file_and_have_their_range(rtx, plan_cache, small_onnx):
    plan = build(small_onnx, plan_cache, GPU, {"batch": (1, 2, 4)})
    _, sidecar = read_plan(plan)
    assert sidecar.inputs == (TensorSpec("x", "float32", ("batch", 4)), TensorSpec("t", "float32", ("batch",)))
    assert sidecar.identity.ranges == {"batch": (1, 2, 4)}
    assert find_plan(small_onnx, plan_cache, GPU) is None


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x09" * 500])
def test_a_file_that_is_no_network_is_refused_with_the_parser_s_words(rtx, plan_cache, tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineLoadError, match=r"broken.onnx: tensorrt_rtx .* cannot read it: .+"):
        build(path, plan_cache, GPU)
    assert list(plan_cache.glob("*.plan")) == []


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(rtx, plan_cache, tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"], name="the-determinant")], "g", [x], [y])
    path = tmp_path / "det.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(EngineLoadError, match=r"node 'the-determinant' \(Det\): "):
        build(path, plan_cache, GPU)


def test_a_build_is_cancelled_from_its_progress_and_leaves_nothing(rtx, plan_cache):
    with pytest.raises(BuildCancelled, match=f"{SHIPPED[-1].name}: the build was cancelled"):
        build(SHIPPED[-1], plan_cache, GPU, {}, listening([], until=20))
    assert [path.name for path in plan_cache.iterdir()] == ["build.lock"]
    assert build(SHIPPED[-1], plan_cache, GPU).is_file()


def test_an_error_of_whoever_listens_cancels_and_is_not_raised_into_tensorrt(rtx, plan_cache):
    def gone(share, phase):
        raise BrokenPipeError

    with pytest.raises(BuildCancelled):
        build(SHIPPED[0], plan_cache, GPU, {}, gone)


def test_one_build_at_a_time(rtx, plan_cache, small_onnx):
    with trt_build._alone(plan_cache), pytest.raises(EngineError, match="another build is at work"):
        build(small_onnx, plan_cache, GPU)
    assert build(small_onnx, plan_cache, GPU).is_file()


def test_what_a_killed_build_left_is_swept(rtx, plan_cache, small_onnx):
    plan_cache.mkdir(parents=True)
    (plan_cache / ".denoiser.plan.1.tmp").write_bytes(b"half")
    build(small_onnx, plan_cache, GPU)
    assert list(plan_cache.glob(".*")) == []


def test_a_folder_that_cannot_be_written_is_named(rtx, tmp_path, small_onnx):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EngineError, match=r"/file/cache: Not a directory; a plan needs room in cache_dir"):
        build(small_onnx, tmp_path / "file" / "cache", GPU)


def test_the_child_tells_its_progress_and_the_plan(rtx, plan_cache):
    builder = child(SHIPPED[-1], plan_cache, "--ranges", '{"batch": [1, 8, 8]}')
    out, err = builder.communicate(timeout=120)
    lines = [json.loads(line) for line in out.splitlines()]
    assert builder.returncode == 0, err
    assert lines[-1] == {"plan": str(find_plan(SHIPPED[-1], plan_cache, GPU, {"batch": (1, 8, 8)}))}
    assert lines[0].keys() == {"progress", "phase", "elapsed_s"}


def test_the_child_ends_with_the_reason(rtx, plan_cache, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no")
    builder = child(tmp_path / "broken.onnx", plan_cache)
    out, _ = builder.communicate(timeout=120)
    assert builder.returncode == 1 and "cannot read it" in json.loads(out.splitlines()[-1])["error"]


@pytest.mark.parametrize("wrong", ["{", "[1]", '{"batch": 3}', '{"batch": [1, 2]}', '{"batch": [1, 2, "x"]}'])
def test_ranges_that_are_none_are_named_by_the_child(plan_cache, small_onnx, wrong):
    builder = child(small_onnx, plan_cache, "--ranges", wrong)
    _, err = builder.communicate(timeout=120)
    assert builder.returncode == 2 and "argument --ranges: invalid" in err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_child_in_the_middle(rtx, plan_cache, sent):
    builder = child(SHIPPED[-1], plan_cache)
    assert "progress" in json.loads(builder.stdout.readline())  # TensorRT is at work
    builder.send_signal(sent)
    out, _ = builder.communicate(timeout=120)
    assert builder.returncode == CANCELLED
    assert out == "" or "cancelled" in json.loads(out.splitlines()[-1])["error"]
    assert list(plan_cache.glob("*.plan")) == [] == list(plan_cache.glob(".*"))


def test_the_child_cancels_where_nobody_listens_any_more(rtx, plan_cache):
    builder = child(SHIPPED[-1], plan_cache)
    builder.stdout.readline()
    builder.stdout.close()
    builder.wait(timeout=120)
    # Unless it was done before it had anything more to say.
    assert builder.returncode == (0 if find_plan(SHIPPED[-1], plan_cache, GPU) else CANCELLED)


def test_the_child_stands_behind_everything_else(rtx, plan_cache):
    builder = child(SHIPPED[-1], plan_cache)
    builder.stdout.readline()
    nice = os.getpriority(os.PRIO_PROCESS, builder.pid)
    out_of_memory = Path(f"/proc/{builder.pid}/oom_score_adj")
    first_to_go = not out_of_memory.exists() or int(out_of_memory.read_text()) == 800
    builder.kill()
    builder.communicate(timeout=120)
    assert nice == min(os.nice(0) + 10, 19) and first_to_go


def test_times_measured_once_are_used_again_and_a_cache_that_does_not_fit_is_replaced(fake_gpu, plan_cache, small_onnx):
    build(small_onnx, plan_cache, GPU)
    times = timing_cache(identify(small_onnx, "tensorrt 10.3.0", GPU, {}), plan_cache)
    assert times.read_text() == "10.3.0 timed; "
    build(small_onnx, plan_cache, GPU, {"batch": (1, 1, 1)})
    assert times.read_text() == "10.3.0 timed; " * 2
    times.write_bytes(b"of another version")
    build(small_onnx, plan_cache, GPU)
    assert times.read_text() == "10.3.0 timed; "


def test_the_workspace_is_a_quarter_of_what_is_free_and_tf32_is_off(fake_gpu, plan_cache, small_onnx, monkeypatch):
    seen: list[Any] = []
    trt = load_library().trt
    whole = trt.Builder.build_serialized_network

    def build_serialized_network(self, network, config):
        seen.append(config)
        return whole(self, network, config)

    monkeypatch.setattr(trt.Builder, "build_serialized_network", build_serialized_network)
    build(small_onnx, plan_cache, Gpu(**{**asdict(GPU), "free_bytes": 4000}))
    assert list(seen[0]._limits.values()) == [1000] and seen[0]._flags == set()


def test_a_failed_build_carries_the_log(fake_gpu, plan_cache, small_onnx, monkeypatch):
    trt = load_library().trt

    def fail(self, network, config):
        trt._complain(self._logger, "Error Code 10: Could not find any implementation for node xw.")

    monkeypatch.setattr(trt.Builder, "build_serialized_network", fail)
    with pytest.raises(EngineLoadError, match="small.onnx: tensorrt 10.3.0 cannot build it: Error Code 10: Could not find any"):
        build(small_onnx, plan_cache, GPU)
