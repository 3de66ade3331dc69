from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from denoised.engines import trt_device, trt_library
from denoised.engines.engine import EngineUnavailable
from denoised.engines.trt_library import Gpu
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def small_onnx(tmp_path):
    """A file with a tiny network: inputs x (batch, 4) and t (batch,), output out = x @ W + t."""
    weights = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            helper.make_node("Unsqueeze", ["t", "axes"], ["tt"]),
            helper.make_node("Add", ["xw", "tt"], ["out"]),
        ],
        "small",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch"]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    return path


FAKE_NVIDIA = Path(__file__).parent / "fake_nvidia"
FAKE_GPU = Gpu("Fake Orin", "8.7", 8, "12.6", False, 1 << 32, 1 << 32)
"""What a probe of fake_nvidia's machine would find."""


def forget_libraries():
    """As if this process had not looked for a GPU or a TensorRT yet."""
    trt_library.load_library.cache_clear()
    trt_library.known_gpu.cache_clear()
    trt_device._THREAD.__dict__.clear()
    for name in [m for m in sys.modules if m.split(".")[0] in ("tensorrt", "pycuda", "fake_gpu", "fake_ptx")]:
        del sys.modules[name]


@pytest.fixture
def fake_gpu(monkeypatch):
    """TensorRT and pycuda as on a machine with a GPU, whose rules are enforced: see fake_nvidia/. At the end it is clean."""
    forget_libraries()
    monkeypatch.syspath_prepend(str(FAKE_NVIDIA))
    gpu = importlib.import_module("fake_gpu").gpu
    monkeypatch.setattr(trt_device, "cuda_driver", importlib.import_module("pycuda.driver").Driver)
    monkeypatch.setattr(trt_library, "probe", lambda: FAKE_GPU)
    yield gpu
    forget_libraries()
    assert gpu.leaks == [] or gpu.poisoned
    assert gpu.stack == []
    assert [f"{block.kind} of {block.nbytes} bytes" for block in gpu.blocks if block.live and not gpu.poisoned] == []
    assert [graph for graph in gpu.graphs if graph["live"] and not gpu.poisoned] == []


@pytest.fixture(scope="session")
def gpu_here():
    """The GPU of this machine, or why there is none."""
    try:
        return trt_library.probe()
    except EngineUnavailable as e:
        return str(e)


@pytest.fixture
def real_gpu(gpu_here):
    if isinstance(gpu_here, str):
        pytest.skip(f"not run on a GPU: {gpu_here}")
    forget_libraries()
    yield gpu_here
    forget_libraries()


@pytest.fixture
def plan_cache(tmp_path):
    return tmp_path / "cache" / "tensorrt"
