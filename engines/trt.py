"""TensorRT behind the engine protocol: a plan from the cache (see `trt_plans`, `trt_build`) run with pycuda.

Addresses and shapes are told to TensorRT only when they change; from the third call with the same ones on a call is a CUDA
graph, which spares a small network most of its launch time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .engine import EngineLoadError, EngineRunError, TensorSpec, check_feeds
from .trt_build import dtypes
from .trt_device import Buffer, Device, Graph, open_device
from .trt_library import Library, load_library, memory_available
from .trt_plans import Sidecar, read_plan, refuse

log = logging.getLogger(__name__)

_GRAPH_AFTER = 2
"""Calls with the same shapes and addresses before one is recorded: TensorRT wants one, and shapes that change want none."""


class TensorRtEngine:
    """A plan, ready to run, on the first GPU. Belongs to the thread that opened it, `close` included."""

    def __init__(self, plan: Path):
        self._library: Library = load_library()
        self._thread = threading.get_ident()
        self._device: Device = open_device()
        data, sidecar = read_plan(plan)
        self.inputs = {spec.name: spec for spec in sidecar.inputs}
        self.outputs = {spec.name: spec for spec in sidecar.outputs}
        self.provider = self._library.name
        self._buffers: dict[str, Buffer] = {}
        self._told: dict[str, tuple[int, ...]] = {}
        """Shapes of the inputs, as TensorRT knows them."""
        self._addresses: dict[str, int] = {}
        """Likewise."""
        self._calls: dict[tuple[Any, ...], int] = {}
        self._graphs: dict[tuple[Any, ...], Graph] = {}
        self._graphs_work = True
        if sidecar.identity.library != self._library.name:
            raise EngineLoadError(
                f"{plan}: built by {sidecar.identity.library}, here is {self._library.name}; it is built again from the ONNX file"
            )
        with self._device.current(str(plan)):
            self._open(plan, data, sidecar)

    def _open(self, plan: Path, data: bytes, sidecar: Sidecar) -> None:
        trt = self._library.trt
        self._library.errors.clear()
        self._fits(plan, "the network", len(data))
        self._runtime = trt.Runtime(self._library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            refuse(plan)
            raise EngineLoadError(
                self._library.explain(f"{plan}: {self._library.name} refuses this plan, which is deleted and built again")
            )
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if names != self.inputs.keys() | self.outputs.keys():
            refuse(plan)
            raise EngineLoadError(f"{plan}: its tensors {sorted(names)} are not those written beside it; deleted")
        types = dtypes(trt)
        for spec in (*sidecar.inputs, *sidecar.outputs):
            found = types.get(self._engine.get_tensor_dtype(spec.name))
            if found != spec.dtype:
                raise EngineLoadError(f"{plan}: '{spec.name}' is {found}, expected {spec.dtype}")
        self._fits(plan, "a step's scratch memory at its largest shapes", self._engine.device_memory_size_v2)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineLoadError(self._library.explain(f"{plan}: no execution context"))
        self._stream = self._device.cuda.Stream()

    def _fits(self, plan: Path, what: str, nbytes: int) -> None:
        """Past the end of a board's memory lies its swap, a hundred times slower, or the end of some process."""
        free = memory_available(self._device.cuda.mem_get_info()[0])
        if nbytes > free:
            raise EngineLoadError(
                f"{plan}: {what} takes {nbytes / 1e6:.0f} MB, free are {free / 1e6:.0f} MB; use a smaller batch or variant, "
                "or end what else uses this memory"
            )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Engine.run`. `EngineLost` where this process cannot use the GPU any more."""
        check_feeds(self.inputs, feeds)
        self._check_thread()
        with self._device.current("a step"):
            self._shape({name: array.shape for name, array in feeds.items()})
            for name, array in feeds.items():
                buffer = self._buffers[name]
                buffer.host(array.shape, array.dtype.name)[...] = array
                buffer.upload(array.nbytes, self._stream)
            self._enqueue()
            results = {name: self._result(spec) for name, spec in self.outputs.items()}
            self._stream.synchronize()
        return results

    def close(self) -> None:
        """See `Engine.close`."""
        self._check_thread()
        with self._device.current("closing"):
            self._stream.synchronize()
            self._forget_graphs()
            # In this order: a context uses its engine, an engine its runtime.
            del self._context, self._engine, self._runtime
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers.clear()
            del self._stream

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise EngineRunError("this engine belongs to the thread that opened it: pycuda cannot free its memory elsewhere")

    def _shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Tells TensorRT the shapes of a call, where they are new, and gives every tensor the memory it takes."""
        if shapes == self._told:
            return
        for name, shape in shapes.items():
            if self._told.get(name) != shape and not self._context.set_input_shape(name, shape):
                least, _, most = (tuple(s) for s in self._engine.get_tensor_profile_shape(name, 0))
                self._told = {}
                raise EngineRunError(
                    self._library.explain(f"input '{name}': found shape {shape}, this plan takes {least} to {most}")
                )
        self._told = {}  # until all of it went well
        if missing := self._context.infer_shapes():
            raise EngineRunError(self._library.explain(f"TensorRT cannot tell the shapes of its outputs: {missing} open"))
        self._forget_graphs()
        for name, spec in {**self.inputs, **self.outputs}.items():
            self._place(name, _nbytes(spec, tuple(self._context.get_tensor_shape(name))))
        self._told = dict(shapes)

    def _place(self, name: str, nbytes: int) -> None:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            if buffer:
                self._stream.synchronize()
                del self._buffers[name]
                buffer.free()
            self._buffers[name] = Buffer(self._device, nbytes)
        self._address(name, self._buffers[name].address)

    def _address(self, name: str, address: int) -> None:
        if self._addresses.get(name) != address:
            if not self._context.set_tensor_address(name, address):
                raise EngineRunError(self._library.explain(f"'{name}': TensorRT refuses its address"))
            self._addresses[name] = address

    def _result(self, spec: TensorSpec) -> np.ndarray:
        shape = tuple(self._context.get_tensor_shape(spec.name))
        self._buffers[spec.name].download(_nbytes(spec, shape), self._stream)
        return self._buffers[spec.name].host(shape, spec.dtype)

    def _enqueue(self) -> None:
        """The network's work into the stream: as a graph once it is worth one, call by call else."""
        key = tuple(self._addresses.values())
        try:
            if key in self._graphs:
                return self._graphs[key].launch()
            calls = self._calls[key] = self._calls.get(key, 0) + 1
            if self._graphs_work and calls > _GRAPH_AFTER:
                self._graphs[key] = Graph(self._stream, self._execute)
                return self._graphs[key].launch()
        except (RuntimeError, OSError, AttributeError) as e:  # no such function in an old driver, or a network that cannot
            log.info("%s: without CUDA graphs: %s", self.provider, self._library.explain(str(e)))
            self._graphs_work = False
            self._forget_graphs()
        if not self._execute():
            raise EngineRunError(self._library.explain(f"{self._library.name} failed in a step"))
        return None

    def _execute(self) -> bool:
        return bool(self._context.execute_async_v3(stream_handle=int(self._stream.handle)))

    def _forget_graphs(self) -> None:
        """What they hold of shapes and addresses is not true any more."""
        if self._graphs:
            self._stream.synchronize()
        for graph in self._graphs.values():
            graph.free()
        self._graphs.clear()
        self._calls.clear()


def _nbytes(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    if any(size < 0 for size in shape):
        raise EngineRunError(f"'{spec.name}': its shape {shape} depends on the data, expected one that the inputs' shapes give")
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
