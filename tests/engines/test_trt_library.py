"""Which GPU and which TensorRT are here: asked without touching anything that could hang or crash this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from denoised.engines import trt_library
from denoised.engines.engine import EngineUnavailable
from denoised.engines.trt_library import Gpu, load_library, memory_available, probe

LIBCUDA = """
#include <stddef.h>
#include <string.h>
#include <unistd.h>
int cuInit(unsigned flags) { INIT }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGet(int *device, int n) { *device = 0; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int *value, int what, int device) {
    *value = what == 75 ? 8 : what == 76 ? 7 : what == 16 ? 8 : what == 18 ? 1 : -1; return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = context; return 0; }
int cuCtxPushCurrent_v2(void *context) { return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 3000000000; *total = 8000000000; return 0; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts a libcuda.so.1 where the child finds it first; INIT and COUNT are what it does."""

    def install(init="return 0;", count=1):
        (tmp_path / "cuda.c").write_text(LIBCUDA.replace("INIT", init).replace("COUNT", str(count)))
        command = ["gcc", "-shared", "-fPIC", "-w", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "cuda.c")]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            pytest.skip("gcc is not installed: sudo apt-get install gcc")
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return install


def test_a_gpu_is_described_as_its_driver_does(driver):
    driver()
    assert probe() == Gpu("Orin", "8.7", 8, "12.6", True, 3000000000, 8000000000)


@pytest.mark.parametrize(
    ("init", "count", "words"),
    [
        ("return 100;", 1, r"cuInit: CUDA error 100 \(CUDA_ERROR_NO_DEVICE\); is a GPU there.*engine.backend: onnxruntime"),
        ("return 0;", 0, "knows no GPU"),
        ("*(volatile int *)0 = 1; return 0;", 1, "ended with status -11"),
    ],
)
def test_a_driver_without_a_gpu_or_one_that_crashes_is_said(driver, init, count, words):
    driver(init, count)
    with pytest.raises(EngineUnavailable, match=words):
        probe()


def test_a_driver_that_hangs_is_not_waited_for(driver):
    driver("sleep(600); return 0;")
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="did not answer within 1 s"):
        probe(timeout_s=1)
    assert time.monotonic() - began < 60


def test_no_driver_is_said_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "libcuda.so.1").write_bytes(b"no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"no NVIDIA driver on this machine \(.*\); or set engine.backend: onnxruntime"):
        probe()


@pytest.mark.parametrize(("version", "taken"), [("10.2.0", False), ("10.3.0", True), ("11.4.0.106", True), ("12.0.0", False)])
def test_the_versions_from_10_3_to_11_are_taken(fake_gpu, monkeypatch, version, taken):
    monkeypatch.setattr(trt_library, "MODULES", ("tensorrt",))
    monkeypatch.setenv("FAKE_TENSORRT", version)
    if taken:
        assert load_library().name == f"tensorrt {version}"
    else:
        with pytest.raises(EngineUnavailable, match=rf"version {version}, expected 10.3 to 11.x.*JetPack.*onnxruntime"):
            load_library()


def test_without_any_tensorrt_every_module_is_named(monkeypatch):
    load_library.cache_clear()
    monkeypatch.setattr(trt_library, "MODULES", ("no_such_tensorrt", "nor_this"))
    with pytest.raises(EngineUnavailable, match="no_such_tensorrt: No module named .*; nor_this: "):
        load_library()


def test_the_log_s_last_errors_are_attached_and_forgotten(fake_gpu):
    library = load_library()
    severities = library.trt.ILogger
    for n in range(30):
        library.logger.log(severities.ERROR, f"error {n}\n  goes on")
    library.logger.log(severities.WARNING, "a warning")
    library.logger.log(severities.ERROR, None)  # nothing is ever raised into TensorRT
    words = library.explain("building")
    assert words.startswith("building: error 11 goes on; ") and "error 29 goes on; a message that could not be read" in words
    assert "warning" not in words
    assert library.explain("building") == "building, and the log does not say why"


def test_the_memory_that_can_be_taken_is_the_smaller_of_the_two_truths():
    assert memory_available(1000) == 1000
    assert 0 < memory_available(1 << 60) < 1 << 60


def test_looking_for_a_gpu_loads_neither_tensorrt_nor_pycuda():
    code = "import sys, denoised.engines.trt, denoised.engines.trt_library as l\ntry: l.probe()\nexcept Exception: pass\n"
    code += "print([m for m in sys.modules if m.split('.')[0] in ('tensorrt', 'tensorrt_rtx', 'pycuda')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert ran.stdout.strip() == "[]", ran.stderr
