"""A trajectory on the GPU: x, the network's answer and what a sampler remembers stay there from the first step to the last.

A step is the network's launch and one element-wise kernel, and nothing waits for the GPU until somebody looks at x.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .engine import EngineRunError
from .trt_device import Graph

if TYPE_CHECKING:
    from .trt import TensorRtEngine


@dataclass(eq=False)
class Binding:
    """One way to call the network: the shapes of its inputs and where all its tensors are."""

    shapes: dict[str, tuple[int, ...]]
    addresses: dict[str, int]
    calls: int = 0
    changes: int = 0
    """Calls since shapes had changed so often."""
    graph: Graph | None = None


class DeviceArray:
    """float32 of x's shape on the GPU; `np.asarray` waits for all that was asked before and brings a copy."""

    def __init__(self, bound: DeviceBound, address: int):
        self._bound, self.address = bound, address

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on the GPU cannot be seen without a copy")
        here = self._bound.fetch(self.address)
        return here if dtype is None else here.astype(dtype, copy=False)


class DeviceBound:
    """See `engine.Bound`."""

    def __init__(self, engine: TensorRtEngine, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]], key: Any):
        if x.dtype != np.float32:
            raise EngineRunError(f"x: expected float32 for a trajectory on the GPU, found {x.dtype.name}")
        self._engine, self._key, self._shape = engine, key, x.shape
        self._cuda, self._device, self._stream = engine.device.cuda, engine.device, engine.stream
        self.programs: dict[Any, Any] = {}
        self.bindings: list[Binding] = []
        self._owned: list[Any] = []
        with self._device.current("making room for a trajectory"):
            try:
                self._make_room(x, conditions)
            except Exception:
                self.free()
                raise

    def _make_room(self, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> None:
        shapes = {"x": x.shape, "t": (len(x),), **{name: array.shape for name, array in conditions[0].items()}}
        results = self._engine.output_nbytes(shapes)
        answer = next(iter(results))
        if results[answer] != x.nbytes:
            raise EngineRunError(f"output '{answer}' has {results[answer]} bytes, expected those of x, {x.nbytes}")
        # Page-locked, so that a copy does not wait; the event says when it may be written again.
        self._staging = self._cuda.pagelocked_empty(x.shape, np.float32)
        self._owned.append(self._staging.base)
        self._staged = self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)
        common = {name: self._allocate(nbytes) for name, nbytes in {"x": x.nbytes, "t": 4 * len(x), **results}.items()}
        self._t = common["t"]
        # Not memory shared with the CPU, even on a Jetson: every step reads it, and there the GPU does not cache it.
        self._conditions = [{name: self._allocate(array.nbytes) for name, array in each.items()} for each in conditions]
        self.bindings = [Binding(shapes, common | mine) for mine in self._conditions]
        self.slots = [DeviceArray(self, common["x"]), DeviceArray(self, common[answer])]

    def _allocate(self, nbytes: int) -> int:
        self._owned.append(self._cuda.mem_alloc(nbytes))
        return int(self._owned[-1])

    def load(self, conditions: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Copies the constant inputs in, and waits for it."""
        with self._device.current("the inputs of a trajectory"):
            for mine, given in zip(self._conditions, conditions):
                for name, array in given.items():
                    self._cuda.memcpy_htod_async(mine[name], np.ascontiguousarray(array), self._stream)
            self._stream.synchronize()

    def array(self) -> DeviceArray:
        """See `engine.Bound.array`."""
        with self._device.current("making room for a trajectory"):
            address = self._allocate(self._staging.nbytes)
            self._cuda.memset_d32_async(address, 0, self._staging.size, self._stream)
        return DeviceArray(self, address)

    def store(self, array: DeviceArray, host: np.ndarray) -> None:
        """See `engine.Bound.store`."""
        here = np.asarray(host)
        with self._device.current("copying to the GPU"):
            self._staged.synchronize()
            np.copyto(self._staging, here)
            self._cuda.memcpy_htod_async(array.address, self._staging, self._stream)
            self._staged.record(self._stream)

    def fetch(self, address: int) -> np.ndarray:
        """A copy of an array."""
        with self._device.current("copying from the GPU"):
            self._cuda.memcpy_dtoh_async(self._staging, address, self._stream)
            self._stream.synchronize()
            return self._staging.copy()

    def call(self, condition: int, t: float) -> None:
        """See `engine.Bound.call`."""
        (bits,) = struct.unpack("I", struct.pack("f", t))
        with self._device.current("a step"):
            # On the GPU and in its turn: the steps before may not have begun yet.
            self._cuda.memset_d32_async(self._t, bits, self._shape[0], self._stream)
            self._engine.enqueue(self.bindings[condition])

    def prepare(
        self,
        outs: Sequence[DeviceArray],
        weights: Sequence[Sequence[float]],
        ins: Sequence[DeviceArray],
        where: DeviceArray | None = None,
    ) -> Callable[[], None]:
        """See `engine.Bound.prepare`."""
        to, of = ([array.address for array in arrays] for arrays in (outs, ins))
        chosen = where.address if where is not None else None
        with self._device.current("preparing a step"):
            launch = self._device.mix(to, weights, of, chosen, self._staging.size)

        def run() -> None:
            with self._device.current("a step"):
                launch(self._stream)

        return run

    def close(self) -> None:
        """See `engine.Bound.close`."""
        self._engine.shelve(self._key, self)

    def free(self) -> None:
        """Gives the memory back, with the context current; CUDA waits for what is under way."""
        self.programs.clear()
        for owned in self._owned:
            owned.free()
        self._owned.clear()
