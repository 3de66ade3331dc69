"""The part of `pycuda.driver` that we use, with its rules: contexts per thread, free where made, no default stream."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from fake_gpu import CAPABILITY, NAME, Block, Broken, gpu
from fake_gpu import Stream as _Stream
from fake_ptx import Kernel


class Error(Exception):
    """Base of all."""


class LogicError(Error):
    """Whatever is not memory or a launch."""


class MemoryError(Error):
    """No memory left."""


def _told(broken: Broken) -> Error:
    return (MemoryError if "out of memory" in str(broken) else LogicError)(f"cuFake failed: {broken}")


class device_attribute:  # noqa: N801
    INTEGRATED = "integrated"


class host_alloc_flags:  # noqa: N801
    PORTABLE, DEVICEMAP = 1, 2


class event_flags:  # noqa: N801
    DISABLE_TIMING = 2


def init(flags: int = 0) -> None:
    if gpu.poisoned:
        raise LogicError(gpu.poisoned)


class Device:
    def __init__(self, number: int):
        if number != 0:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    def name(self) -> str:
        return NAME

    def compute_capability(self) -> tuple[int, ...]:
        return tuple(int(part) for part in CAPABILITY.split("."))

    def get_attribute(self, attribute: str) -> int:
        return int(gpu.unified) if attribute == device_attribute.INTEGRATED else 0

    def retain_primary_context(self) -> Context:
        return Context()


class Context:
    def __init__(self) -> None:
        self.thread, self.detached = threading.get_ident(), False

    def push(self) -> None:
        if gpu.poisoned:
            raise LogicError(gpu.poisoned)
        gpu.stack.append(self)

    def detach(self) -> None:
        if gpu.stack and gpu.stack[-1] is self:
            gpu.stack.pop()
        self.detached = True

    def __del__(self) -> None:
        if not self.detached:
            gpu.leaks.append("a primary context that was never detached")

    @staticmethod
    def pop() -> None:
        if not gpu.stack:
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        gpu.stack.pop()

    @staticmethod
    def synchronize() -> None:
        try:
            gpu.require_context()
            for stream in gpu.streams:
                stream.wait()
        except Broken as e:
            raise _told(e) from None


class Stream:
    def __init__(self, flags: int = 0):
        try:
            self._stream = _Stream()
        except Broken as e:
            raise _told(e) from None

    @property
    def handle(self) -> int:
        return self._stream.handle

    def synchronize(self) -> Stream:
        try:
            self._stream.wait()
        except Broken as e:
            raise _told(e) from None
        return self


class Event:
    def __init__(self, flags: int = 0):
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self._stream = stream

    def synchronize(self) -> Event:
        if self._stream:
            self._stream.synchronize()
        return self


class DeviceAllocation:
    def __init__(self, nbytes: int):
        try:
            self._block = Block(nbytes, "device memory")
        except Broken as e:
            raise _told(e) from None

    def __int__(self) -> int:
        return self._block.address

    def free(self) -> None:
        try:
            self._block.free()
        except Broken as e:
            raise _told(e) from None


def mem_alloc(nbytes: int) -> DeviceAllocation:
    return DeviceAllocation(nbytes)


class PagelockedHostAllocation:
    """Base of the arrays that `pagelocked_empty` gives."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, flags: int):
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        try:
            self._block = Block(count, "page-locked memory")
        except Broken as e:
            raise _told(e) from None
        self._mapped = bool(flags & host_alloc_flags.DEVICEMAP)
        self.__array_interface__ = {
            "shape": shape, "typestr": np.dtype(dtype).str, "data": (self._block.data.ctypes.data, False), "version": 3,
        }  # fmt: skip

    def get_device_pointer(self) -> int:
        if not self._mapped:
            raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        return self._block.address

    def free(self) -> None:
        try:
            self._block.free()
        except Broken as e:
            raise _told(e) from None


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return np.asarray(PagelockedHostAllocation(shape, dtype, mem_flags))


def mem_get_info() -> tuple[int, int]:
    try:
        gpu.require_context()
    except Broken as e:
        raise _told(e) from None
    return gpu.total - gpu.used, gpu.total


def memcpy_htod_async(dest: Any, src: np.ndarray, stream: Stream) -> None:
    _contiguous(src)
    pageable = not _pagelocked(src)
    source = src.copy() if pageable else src  # the driver takes a copy of what it cannot reach itself

    def copy() -> None:
        gpu.bytes_at(int(dest), src.nbytes)[:] = source.reshape(-1).view(np.uint8)
        gpu.launches["upload"] += 1

    _put(stream, copy)


def memcpy_dtoh_async(dest: np.ndarray, src: Any, stream: Stream) -> None:
    _contiguous(dest)

    def copy() -> None:
        dest.reshape(-1).view(np.uint8)[:] = gpu.bytes_at(int(src), dest.nbytes)
        gpu.launches["download"] += 1

    _put(stream, copy)


def memset_d32_async(dest: Any, data: int, size: int, stream: Stream) -> None:
    word = struct.pack("I", data)

    def fill() -> None:
        gpu.bytes_at(int(dest), 4 * size)[:] = np.frombuffer(word * size, np.uint8)

    _put(stream, fill)


def module_from_buffer(buffer: bytes) -> Module:
    try:
        gpu.require_context()
    except Broken as e:
        raise _told(e) from None
    return Module(Kernel(buffer.decode("ascii")))


class Module:
    def __init__(self, kernel: Kernel):
        self._kernel = kernel

    def get_function(self, name: str) -> Function:
        if name != self._kernel.name:
            raise LogicError("cuModuleGetFunction failed: named symbol not found")
        return Function(self._kernel)


class Function:
    def __init__(self, kernel: Kernel):
        self._kernel = kernel

    def prepare(self, arg_types: str) -> Function:
        native = {"P": "u64", "I": "u32", "f": "f32"}
        if [native[letter] for letter in arg_types] != self._kernel.types:
            raise LogicError(f"the kernel takes {self._kernel.types}, prepared for {arg_types}")
        self._format = arg_types
        return self

    def prepared_async_call(self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream, *args: Any) -> None:
        struct.pack(self._format, *args)
        threads = grid[0] * block[0]

        def launch() -> None:
            self._kernel.run(threads, block[0], args)
            gpu.launches["kernel"] += 1

        _put(stream, launch)


def _put(stream: Stream, work: Any) -> None:
    if not isinstance(stream, Stream):
        raise TypeError("work goes into a stream, never into the default one")
    try:
        stream._stream.put(work)
    except Broken as e:
        raise _told(e) from None


def _contiguous(array: np.ndarray) -> None:
    if not array.flags.c_contiguous:
        raise BufferError("ndarray is not contiguous")


def _pagelocked(array: Any) -> bool:
    while array is not None:
        if isinstance(array, PagelockedHostAllocation):
            return True
        array = getattr(array, "base", None)
    return False


# --- libcuda, as ctypes sees it ---------------------------------------------------------------------------------------


class Driver:
    """The functions for CUDA graphs that we call through ctypes."""

    def __init__(self) -> None:
        self._graphs: Sequence[Any] = gpu.graphs

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:  # noqa: N802
        if not gpu.can_capture:
            return 801
        _stream_of(stream).recording = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:  # noqa: N802
        found = _stream_of(stream)
        gpu.graphs.append({"work": found.recording, "live": True})
        found.recording = None
        graph._obj.value = len(gpu.graphs)
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:  # noqa: N802
        gpu.graphs.append({"work": gpu.graphs[graph.value - 1]["work"], "live": True})
        executable._obj.value = len(gpu.graphs)
        return 0

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:  # noqa: N802
        found = gpu.graphs[executable.value - 1]
        if not found["live"]:
            return 400
        for work in found["work"]:
            _stream_of(stream).put(work)
        gpu.launches["graph"] += 1
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        gpu.graphs[graph.value - 1]["live"] = False
        return 0

    cuGraphExecDestroy = cuGraphDestroy  # noqa: N815


def _stream_of(handle: Any) -> _Stream:
    return next(stream for stream in gpu.streams if stream.handle == handle.value)
