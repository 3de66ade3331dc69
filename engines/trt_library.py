"""What of NVIDIA is on this machine: which GPU, and which TensorRT. Knows no network and no plan.

The GPU is asked through libcuda in a short-lived child: a driver that hangs or crashes takes nobody along, and TensorRT is
not touched on a machine without one (its Runtime crashes the process there). TensorRT is the module `tensorrt` (10.3 to
11.x; on a Jetson it comes with JetPack, never from a package index) or, on PCs with an RTX card, `tensorrt_rtx`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import logging
import os
import subprocess
import sys
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from .engine import EngineUnavailable

log = logging.getLogger(__name__)

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""In the order of choice; the last is what `tensorrt_rtx` itself imports, and is there without it where only wheels are."""
OLDEST, BEYOND = (10, 3), (12,)
"""Versions of `tensorrt` whose names we use (tests/engines/tensorrt_names.json): OLDEST <= version < BEYOND."""
USE_ONNXRUNTIME = "or set engine.backend: onnxruntime"

# CUdevice_attribute of cuda.h.
_MULTIPROCESSOR_COUNT, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it."""

    name: str
    capability: str
    """Compute capability, '8.7'."""
    processors: int
    """Multiprocessors: boards of one name and capability differ in it."""
    cuda: str
    """The CUDA version of the driver, '12.6'."""
    unified: bool
    """GPU and CPU share one memory, as on a Jetson."""
    free_bytes: int
    total_bytes: int


def probe(timeout_s: float = 20.0) -> Gpu:
    """The first GPU. `EngineUnavailable` says why there is none; a driver silent for `timeout_s` counts as none."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()  # not waited for: what hangs in a driver may not even die
        raise EngineUnavailable(
            f"the NVIDIA driver did not answer within {timeout_s:g} s; look at dmesg, restart the machine, {USE_ONNXRUNTIME}"
        ) from None
    try:
        answer = json.loads(out)
    except ValueError:
        end = (err.strip().splitlines() or ["no output"])[-1]
        raise EngineUnavailable(f"asking the NVIDIA driver ended with status {child.returncode} ({end})") from None
    if "error" in answer:
        raise EngineUnavailable(f"{answer['error']}; {USE_ONNXRUNTIME}")
    return Gpu(**answer)


@functools.cache
def known_gpu() -> Gpu:
    """What `probe` found the first time that it found one; its free memory may have changed since."""
    return probe()


def cuda_driver() -> ctypes.CDLL:
    """libcuda, for what pycuda does not offer. OSError where there is no driver."""
    return ctypes.CDLL("libcuda.so.1")


def _ask_driver() -> Gpu:
    """Only in the child: makes a context, asks and ends."""
    try:
        cuda = cuda_driver()
    except OSError as e:
        raise EngineUnavailable(f"no NVIDIA driver on this machine ({e})") from e

    def call(name: str, *args: Any) -> None:
        if code := getattr(cuda, name)(*args):
            word = ctypes.c_char_p()
            cuda.cuGetErrorName(code, ctypes.byref(word))
            said = word.value.decode() if word.value else "unknown"
            raise EngineUnavailable(
                f"{name}: CUDA error {code} ({said}); is a GPU there, does the driver fit it, and may this user open it "
                "(groups video and render; DeviceAllow= and PrivateDevices= of the service)?"
            )

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    version, count, device, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
    name, free, total = ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.c_size_t()
    call("cuInit", 0)
    call("cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise EngineUnavailable("the NVIDIA driver knows no GPU")
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, len(name), device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxPushCurrent_v2", context)
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        processors=attribute(_MULTIPROCESSOR_COUNT),
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
        unified=bool(attribute(_INTEGRATED)),
        free_bytes=free.value,
        total_bytes=total.value,
    )


def memory_available(gpu_free_bytes: int) -> int:
    """What can still be taken, in bytes: on a board with one memory CUDA and the kernel each know half the truth."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return gpu_free_bytes
    return min(gpu_free_bytes, kib * 1024)


@dataclass(frozen=True)
class Library:
    """The TensorRT of this process, and the last of what it complained about."""

    trt: Any
    """The module."""
    name: str
    """Module and version, 'tensorrt 10.3.0'."""
    logger: Any
    """The one ILogger of the process: TensorRT wants the same for all its objects, for as long as any of them lives."""
    errors: deque[str]

    def explain(self, what: str) -> str:
        """`what` failed, with the log's reasons, which TensorRT gives nowhere else. Forgets them."""
        reasons = "; ".join(self.errors)
        self.errors.clear()
        return f"{what}: {reasons}" if reasons else f"{what}, and the log does not say why"


@functools.cache
def load_library() -> Library:
    """Imports TensorRT, once. Only after `probe` found a GPU may a Runtime be made from it."""
    refused = []
    for name in MODULES:
        try:
            trt = importlib.import_module(name)
            version = tuple(int(part) for part in trt.__version__.split(".")[:2])
        except Exception as e:  # a library that is not there or not for this machine fails with more than ImportError
            refused.append(f"{name}: {(str(e).splitlines() or [type(e).__name__])[0]}")
            continue
        if name == "tensorrt" and not OLDEST <= version < BEYOND:
            refused.append(f"{name}: version {trt.__version__}, expected 10.3 to 11.x")
            continue
        errors: deque[str] = deque(maxlen=20)
        return Library(trt, f"{name.removesuffix('_bindings')} {trt.__version__}", _logger(trt, errors), errors)
    raise EngineUnavailable(
        f"TensorRT does not import ({'; '.join(refused)}). On a Jetson it comes with JetPack (apt install "
        f"python3-libnvinfer, and a virtual environment made with --system-site-packages), on a PC: pip install "
        f"tensorrt; {USE_ONNXRUNTIME}"
    )


def _logger(trt: Any, errors: deque[str]) -> Any:
    """TensorRT calls it from threads of its own, and an exception out of it would end the process."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 does not see super().__init__()

        def log(self, severity: Any, message: str) -> None:
            try:
                if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                    errors.append(" ".join(message.split()))
                elif severity == trt.ILogger.WARNING:
                    log.debug("%s", message)
            except Exception:
                errors.append("a message that could not be read")

    return Logger()


def main() -> None:
    """`python -m denoised.engines.trt_library`: the GPU, or why there is none, as one line of JSON."""
    try:
        answer = asdict(_ask_driver())
    except EngineUnavailable as e:
        answer = {"error": str(e)}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # a driver's own clean-up has hung before


if __name__ == "__main__":
    main()
