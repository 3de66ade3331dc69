"""A GPU's memory, streams, kernels and graphs through pycuda, for the one thread that opened them. Knows no network.

pycuda's rules (its driver documentation and `src/cpp/cuda.hpp`): a context is pushed and popped in pairs, or the end of the
thread aborts the process; what was made in one thread cannot be freed in another. So every use is inside `Device.current`,
and a thread has a `Device` of its own. All of them share the GPU's primary context, which TensorRT uses too: a second one
would cost a Jetson some hundred MB. No nvcc is needed: the kernels are PTX, which the driver itself compiles.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .engine import EngineLost, EngineRunError, EngineUnavailable
from .trt_library import USE_ONNXRUNTIME, cuda_driver

log = logging.getLogger(__name__)

_THREAD = threading.local()
_BLOCK = 256
_CAPTURE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of cuda.h


def open_device() -> Device:
    """The first GPU as this thread holds it, from its first use to the thread's end. Only after `probe` found one."""
    if not hasattr(_THREAD, "device"):
        _THREAD.device = Device()
    device: Device = _THREAD.device
    return device


class Device:
    """See `open_device`."""

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda

            cuda.init()
            device = cuda.Device(0)
            self._context = device.retain_primary_context()
        except Exception as e:  # built for another driver it fails with more than ImportError
            raise EngineUnavailable(
                f"pycuda does not work here ({type(e).__name__}: {e}); pip install pycuda on this machine, with CUDA's "
                f"headers, {USE_ONNXRUNTIME}"
            ) from e
        self.cuda: Any = cuda
        self.unified = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        """GPU and CPU share one memory: what the host writes needs no copy."""
        self._kernels: dict[tuple[int, int, bool], Any] = {}

    def __del__(self) -> None:
        """At the thread's end. pycuda's own clean-up takes a primary context for one of its making, and complains."""
        with contextlib.suppress(Exception):
            self._kernels.clear()
            self._context.detach()

    @contextlib.contextmanager
    def current(self, doing: str) -> Iterator[None]:
        """In here the context is current. An error of CUDA becomes `EngineRunError`, one that will stay `EngineLost`."""
        cuda = self.cuda
        try:
            self._context.push()
        except cuda.Error as e:
            raise EngineLost(f"{doing}: {e}; this process cannot use the GPU any more") from e
        try:
            yield
        except (cuda.Error, EngineRunError) as e:
            raise self._explained(doing, e) from e.__cause__
        finally:
            with contextlib.suppress(cuda.Error):  # the error before it is the one to tell
                cuda.Context.pop()

    def _explained(self, doing: str, error: Exception) -> EngineRunError:
        """A sticky error (illegal address, failed launch, ECC) is told by every later call too; others are not."""
        if isinstance(error, EngineLost):
            return error
        try:
            self.cuda.Context.synchronize()
        except self.cuda.Error as e:
            return EngineLost(f"{doing}: {error}; the GPU refuses all further work of this process ({e})")
        return error if isinstance(error, EngineRunError) else EngineRunError(f"{doing}: {error}")

    def mix(
        self, outs: Sequence[int], weights: Sequence[Sequence[float]], ins: Sequence[int], where: int | None, count: int
    ) -> Callable[[Any], None]:
        """A function of a stream that runs `mix_ptx` on these addresses, each of `count` float32."""
        shape = (len(ins), len(outs), where is not None)
        flat = [float(weight) for row in weights for weight in row]
        if shape not in self._kernels:
            kernel = self.cuda.module_from_buffer(mix_ptx(*shape).encode()).get_function("mix")
            self._kernels[shape] = kernel.prepare("P" * sum(shape) + "I" + "f" * len(flat))
        kernel, grid, block = self._kernels[shape], (-(-count // _BLOCK), 1), (_BLOCK, 1, 1)
        args = [*outs, *ins, *([] if where is None else [where]), count, *flat]

        def launch(stream: Any) -> None:
            kernel.prepared_async_call(grid, block, stream, *args)

        return launch


def mix_ptx(ins: int, outs: int, where: bool = False) -> str:
    """PTX of the kernel `mix`: outs[j] becomes the weighted sum of ins and of outs[0] ... outs[j - 1], in one pass.

    Parameters: addresses of outs, of ins and, with `where`, of an array whose zeros leave the outs as they are; the number
    of elements; the rows of weights. One thread per element reads everything before it writes, so an array may be both.
    PTX 7.0 for sm_75, the oldest GPU of TensorRT 10; the driver compiles it for whatever is newer.
    """
    weights = [(j, k) for j in range(outs) for k in range(ins + j)]
    parameters = [f".param .u64 o{j}" for j in range(outs)] + [f".param .u64 i{k}" for k in range(ins)]
    parameters += [".param .u64 where"] * where + [".param .u32 n"] + [f".param .f32 w{j}_{k}" for j, k in weights]
    lines = ["ld.param.u32 %r0, [n];", "mov.u32 %r1, %ctaid.x;", "mov.u32 %r2, %ntid.x;", "mov.u32 %r3, %tid.x;"]
    lines += ["mad.lo.u32 %r4, %r1, %r2, %r3;", "setp.ge.u32 %p0, %r4, %r0;", "@%p0 ret;", "mul.wide.u32 %d0, %r4, 4;"]
    if where:
        lines += ["ld.param.u64 %d1, [where];", "add.u64 %d1, %d1, %d0;", "ld.global.f32 %f0, [%d1];"]
        lines += ["setp.eq.f32 %p0, %f0, 0f00000000;", "@%p0 ret;"]
    for k in range(ins):
        lines += [f"ld.param.u64 %d1, [i{k}];", "add.u64 %d1, %d1, %d0;", f"ld.global.f32 %v{k}, [%d1];"]
    for j in range(outs):
        for k in range(ins + j):
            rounded = f"fma.rn.f32 %v{ins + j}, %v{k}, %f0, %v{ins + j};" if k else f"mul.rn.f32 %v{ins + j}, %v{k}, %f0;"
            lines += [f"ld.param.f32 %f0, [w{j}_{k}];", rounded]
    for j in range(outs):
        lines += [f"ld.param.u64 %d1, [o{j}];", "add.u64 %d1, %d1, %d0;", f"st.global.f32 [%d1], %v{ins + j};"]
    registers = f".reg .pred %p<1>; .reg .u32 %r<5>; .reg .u64 %d<2>; .reg .f32 %f<1>; .reg .f32 %v<{ins + outs}>;"
    body = "\n".join([registers, *lines, "ret;"])
    return f".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry mix({', '.join(parameters)})\n{{\n{body}\n}}\n"


class Buffer:
    """Memory that GPU and CPU both reach, made once and never grown. On a Jetson it is one memory, else two and copies."""

    def __init__(self, device: Device, nbytes: int):
        cuda = self._cuda = device.cuda
        self._unified, self.nbytes = device.unified, nbytes
        size = max(nbytes, 1)
        # Page-locked: copies are asynchronous. Not managed memory: on a Jetson the CPU may not touch it while a kernel runs.
        flags = cuda.host_alloc_flags.DEVICEMAP if self._unified else 0
        self._host = cuda.pagelocked_empty(size, np.uint8, mem_flags=flags)
        self._device = None if self._unified else cuda.mem_alloc(size)
        self.address = int(self._host.base.get_device_pointer() if self._device is None else self._device)

    def host(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """The CPU's side as an array. It belongs to the buffer."""
        count = int(np.prod(shape, dtype=np.int64))
        return self._host[: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)

    def upload(self, nbytes: int, stream: Any) -> None:
        """What the CPU wrote goes to the GPU, in the stream's turn; the CPU's side stays as it is until then."""
        if self._device is not None:
            self._cuda.memcpy_htod_async(self._device, self._host[:nbytes], stream)

    def download(self, nbytes: int, stream: Any) -> None:
        """And back; there once the stream is synchronised."""
        if self._device is not None:
            self._cuda.memcpy_dtoh_async(self._host[:nbytes], self._device, stream)

    def free(self) -> None:
        """In the thread that made it, with nothing under way; no array of `host` may be touched after it."""
        if self._device is not None:
            self._device.free()
        self._host.base.free()


class Graph:
    """What a stream was given to do, recorded once and launched as one. pycuda has no names for it: libcuda through ctypes."""

    def __init__(self, stream: Any, work: Callable[[], bool]):
        """Records `work`, which says whether it went well. RuntimeError where it cannot be recorded."""
        self._driver, self._stream = cuda_driver(), ctypes.c_void_p(int(stream.handle))
        self._exec, graph = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, _CAPTURE_THREAD_LOCAL)
        try:
            worked = work()
        finally:  # a stream that stays in capture could do nothing else
            ended = self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        try:
            if not worked or ended:
                raise RuntimeError(f"the work cannot be recorded (cuStreamEndCapture: CUDA error {ended})")
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._exec), graph, ctypes.c_ulonglong(0))
        finally:
            if graph:
                self._driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Into the stream it was recorded from. RuntimeError where that fails."""
        self._call("cuGraphLaunch", self._exec, self._stream)

    def free(self) -> None:
        """With nothing of it under way."""
        self._driver.cuGraphExecDestroy(self._exec)

    def _call(self, name: str, *args: Any) -> None:
        if code := getattr(self._driver, name)(*args):
            raise RuntimeError(f"{name}: CUDA error {code}")
