"""TensorRT's side of the engine protocol, on a GPU that knows the rules: what is told when, threads, errors, memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from denoised.engines import trt_library
from denoised.engines.denoise import denoise, start
from denoised.engines.engine import EngineLoadError, EngineLost, EngineNotBuilt, EngineRunError, open_engine
from denoised.engines.onnxrt import OnnxRuntimeEngine
from denoised.engines.samplers import SAMPLERS
from denoised.engines.schedules import cosine
from denoised.engines.trt_build import build
from denoised.engines.trt_plans import read_sidecar


@pytest.fixture
def engine(fake_gpu, small_onnx, plan_cache):
    build(small_onnx, plan_cache, trt_library.known_gpu())
    opened = open_engine(small_onnx, "tensorrt", cache=plan_cache)
    yield opened
    if not fake_gpu.poisoned:
        opened.close()


def feeds(batch=2, value=1.0):
    return {"x": np.full((batch, 4), value, np.float32), "t": np.full(batch, 0.5, np.float32)}


def test_quick(engine, fake_gpu):
    print(engine.run(feeds()))
