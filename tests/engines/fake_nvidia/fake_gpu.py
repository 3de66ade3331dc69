"""A GPU that computes nothing by itself but knows the rules, for `tensorrt.py` and `pycuda/driver.py` beside it.

Its memory is addresses that mean something only while they are allocated; a stream does nothing until somebody waits for
it, so that a missing wait shows as a wrong result; a wrong address poisons it for good, as an illegal access does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

NAME, CAPABILITY, PROCESSORS, CUDA = "Fake Orin", "8.7", 8, "12.6"
ALIGNMENT = 256


class Broken(Exception):
    """A rule of CUDA was broken; `pycuda.driver` makes its own errors of it."""

    def __init__(self, message: str, sticky: bool = False):
        super().__init__(message)
        if sticky:
            gpu.poisoned = message


class Block:
    """Memory from `address` on. Once freed its bytes are rubbish."""

    def __init__(self, nbytes: int, kind: str):
        gpu.require_context()
        if gpu.capturing:
            raise Broken(f"{kind}: allocation while a stream is being captured")
        if nbytes <= 0:
            raise Broken("invalid value")
        if gpu.used + nbytes > gpu.total:
            raise Broken("out of memory")
        self.kind, self.nbytes, self.thread, self.live = kind, nbytes, threading.get_ident(), True
        self.data = np.full(nbytes, 0xCD, np.uint8)
        self.address = gpu.next_address
        gpu.next_address += -(-(nbytes + 1) // ALIGNMENT) * ALIGNMENT
        gpu.blocks.append(self)

    def free(self) -> None:
        if threading.get_ident() != self.thread:
            gpu.leaks.append(f"{self.kind} of {self.nbytes} bytes freed in another thread")
            return
        if not self.live:
            raise Broken(f"{self.kind} freed twice", sticky=True)
        for stream in gpu.streams:  # CUDA waits by itself
            stream.wait()
        self.live = False
        self.data[:] = 0xEE


class Stream:
    """Work in order, done when somebody waits. In capture it is recorded instead."""

    def __init__(self) -> None:
        gpu.require_context()
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        gpu.streams.append(self)
        self.handle = 0x5000 + len(gpu.streams)

    def put(self, work: Callable[[], None]) -> None:
        gpu.require_context()
        (self.queue if self.recording is None else self.recording).append(work)

    def wait(self) -> None:
        gpu.require_context()
        if self.recording is not None:
            raise Broken("operation not permitted when stream is capturing")
        while self.queue:
            self.queue.pop(0)()
        gpu.check_alive()


class Gpu:
    """The one GPU of the machine."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new machine; what tests set comes back to its default."""
        self.blocks: list[Block] = []
        self.streams: list[Stream] = []
        self.leaks: list[str] = []
        self.poisoned: str | None = None
        self.next_address = 0x7000_0000_0000
        self.total = 1 << 32
        self.unified = False
        self.can_capture = True
        self.launches = {"execute": 0, "graph": 0, "kernel": 0, "upload": 0, "download": 0}
        self.graphs: list[Any] = []
        self.thread = threading.local()

    @property
    def used(self) -> int:
        return sum(block.nbytes for block in self.blocks if block.live)

    @property
    def capturing(self) -> bool:
        return any(stream.recording is not None for stream in self.streams)

    @property
    def stack(self) -> list[Any]:
        """The contexts that the calling thread has pushed."""
        if not hasattr(self.thread, "stack"):
            self.thread.stack = []
        stack: list[Any] = self.thread.stack
        return stack

    def require_context(self) -> None:
        if not self.stack:
            raise Broken("invalid device context - no currently active context?")
        self.check_alive()

    def check_alive(self) -> None:
        """A sticky error is told again by whatever is called."""
        if self.poisoned:
            raise Broken(self.poisoned)

    def bytes_at(self, address: int, nbytes: int) -> np.ndarray:
        """`nbytes` of live memory from `address`, as a view."""
        if type(address) is not int:
            raise TypeError(f"an address is an int, found {type(address).__name__}")
        for block in self.blocks:
            if block.live and block.address <= address and address + nbytes <= block.address + block.nbytes:
                return block.data[address - block.address :][:nbytes]
        raise Broken(f"an illegal memory access was encountered (0x{address:x}, {nbytes} bytes)", sticky=True)

    def floats_at(self, address: int, count: int) -> np.ndarray:
        return self.bytes_at(address, 4 * count).view(np.float32)


gpu = Gpu()
