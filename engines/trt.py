"""TensorRT behind the engine protocol: a plan from the cache (see `trt_plans`, `trt_build`) run with pycuda.

Shapes and addresses are told to TensorRT only when they change. From the third call with the same ones on, a call is the
launch of a CUDA graph, which spares a small network most of its launch time; where none can be recorded it stays a call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .engine import EngineLoadError, EngineNotBuilt, EngineRunError, EngineUnavailable, TensorSpec, check_feeds
from .trt_bound import Binding, DeviceBound
from .trt_build import dtypes, find_plan
from .trt_device import Buffer, Graph, open_device
from .trt_library import known_gpu, load_library, memory_available
from .trt_plans import Ranges, Sidecar, read_plan, refuse

log = logging.getLogger(__name__)

_GRAPH_AFTER = 2
"""Calls before one is recorded: TensorRT wants one of the same shapes before, and shapes that change want no graph."""
_SHELF = 4
"""Closed trajectories whose buffers wait for the next one of their shapes."""


def open_plan(onnx: Path, cache: Path | None, ranges: Ranges) -> TensorRtEngine:
    """See `engine.open_engine`."""
    if cache is None:
        raise EngineUnavailable("tensorrt needs a folder for what it compiles: give open_engine its cache")
    plan = find_plan(onnx, cache, known_gpu(), ranges)
    if plan is None:
        raise EngineNotBuilt(
            f"{onnx}: no plan of it for {load_library().name} on {known_gpu().name} in {cache} yet; it is built by "
            f"python -m denoised.engines.trt_build"
        )
    return TensorRtEngine(plan)


class TensorRtEngine:
    """A plan, ready to run, on the first GPU. Belongs to the thread that opened it, `close` included."""

    def __init__(self, plan: Path):
        self._library, self.device, self._thread = load_library(), open_device(), threading.get_ident()
        data, sidecar = read_plan(plan)
        if sidecar.identity.library != self._library.name:
            raise EngineLoadError(
                f"{plan}: built by {sidecar.identity.library}, here is {self._library.name}; build it again from the ONNX file"
            )
        self.inputs = {spec.name: spec for spec in sidecar.inputs}
        self.outputs = {spec.name: spec for spec in sidecar.outputs}
        self.provider = self._library.name
        self._told_shapes: dict[str, tuple[int, ...]] = {}
        self._told_addresses: dict[str, int] = {}
        """What TensorRT knows of the inputs and of all tensors."""
        self._changes = 0
        """How often shapes have changed."""
        self._recorded: list[Binding] = []
        self._graphs_work = True
        self._calls = Binding({}, {})
        self._buffers: dict[str, Buffer] = {}
        """Of `run`; every trajectory has its own."""
        self._bounds: list[DeviceBound] = []
        self._shelf: dict[tuple[Any, ...], DeviceBound] = {}
        """All there are, and of those the ones that wait for the next trajectory."""
        with self.device.current(str(plan)):
            self._open(plan, data, sidecar)

    def _open(self, plan: Path, data: bytes, sidecar: Sidecar) -> None:
        trt = self._library.trt
        self._library.errors.clear()
        self._fits(plan, "the network", len(data))
        self._runtime = trt.Runtime(self._library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            reasons = self._library.explain(f"{plan}: {self.provider} refuses it")
            if "out of memory" in reasons.lower():
                raise EngineLoadError(f"{reasons}; end what else uses this memory")
            refuse(plan)
            raise EngineLoadError(f"{reasons}; deleted, to be built again")
        types = dtypes(trt)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        found = {name: types.get(self._engine.get_tensor_dtype(name)) for name in names}
        expected = {spec.name: spec.dtype for spec in (*sidecar.inputs, *sidecar.outputs)}
        if found != expected:
            refuse(plan)
            raise EngineLoadError(f"{plan}: its tensors are {found}, expected {expected}; deleted, to be built again")
        self._fits(plan, "a step at its largest shapes", self._engine.device_memory_size_v2)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineLoadError(self._library.explain(f"{plan}: no execution context"))
        self.stream = self.device.cuda.Stream()

    def _fits(self, plan: Path, what: str, nbytes: int) -> None:
        """Past the end of a board's memory lies its swap, a hundred times slower, or the end of some process."""
        free = memory_available(self.device.cuda.mem_get_info()[0])
        if nbytes > free:
            raise EngineLoadError(
                f"{plan}: {what} takes {nbytes / 1e6:.0f} MB, free are {free / 1e6:.0f} MB; use a smaller batch or variant, "
                "or end what else uses this memory"
            )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Engine.run`. `EngineLost` where this process cannot use the GPU any more."""
        check_feeds(self.inputs, feeds)
        self.check_thread()
        with self.device.current("a step"):
            shapes = {name: array.shape for name, array in feeds.items()}
            if shapes != self._calls.shapes:
                self._make_room(shapes)
            for name, array in feeds.items():
                self._buffers[name].host(array.shape, array.dtype.name)[...] = array
                self._buffers[name].upload(array.nbytes, self.stream)
            self.enqueue(self._calls)
            results = {}
            for name, spec in self.outputs.items():
                shape = tuple(self._context.get_tensor_shape(name))
                self._buffers[name].download(_nbytes(spec, shape), self.stream)
                results[name] = self._buffers[name].host(shape, spec.dtype)
            self.stream.synchronize()
        return results

    def bind(self, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> DeviceBound:
        """See `Engine.bind`."""
        self.check_thread()
        for condition in conditions:
            check_feeds(self.inputs, {"x": x, "t": np.empty(len(x), np.float32), **condition})
        shapes = (x.shape, *(array.shape for condition in conditions for array in condition.values()), len(conditions))
        bound = self._shelf.pop(shapes, None)
        if bound is None:
            bound = DeviceBound(self, x, conditions, shapes)
            self._bounds.append(bound)
        bound.load(conditions)
        return bound

    def shelve(self, shapes: tuple[Any, ...], bound: DeviceBound) -> None:
        """Keeps the buffers of a closed trajectory; those of the shapes used longest ago are given up."""
        same = self._shelf.pop(shapes, None)
        self._shelf[shapes] = bound
        oldest = self._shelf.pop(next(iter(self._shelf))) if len(self._shelf) > _SHELF else None
        for given_up in filter(None, (same, oldest)):
            with self.device.current("giving memory back"):
                self._forget_graphs(given_up.bindings)
                self._bounds.remove(given_up)
                given_up.free()

    def close(self) -> None:
        """See `Engine.close`."""
        self.check_thread()
        with self.device.current("closing"):
            self.stream.synchronize()
            self._forget_graphs()
            for bound in self._bounds:
                bound.free()
            for buffer in self._buffers.values():
                buffer.free()
            self._bounds.clear()
            self._shelf.clear()
            self._buffers.clear()
            # In this order: a context uses its engine, an engine its runtime.
            del self._context, self._engine, self._runtime, self.stream

    def check_thread(self) -> None:
        """`EngineRunError` elsewhere than in the thread that opened it: there pycuda's objects cannot be used or freed."""
        if threading.get_ident() != self._thread:
            raise EngineRunError("this engine belongs to the thread that opened it; open one per thread")

    def output_nbytes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """What every output takes at these shapes of the inputs."""
        self._tell_shapes(shapes)
        return {name: _nbytes(spec, tuple(self._context.get_tensor_shape(name))) for name, spec in self.outputs.items()}

    def enqueue(self, binding: Binding) -> None:
        """The network's work into the stream, with the context current: as a graph once it is worth one, else as a call."""
        self._tell_shapes(binding.shapes)
        if binding.changes != self._changes:
            binding.changes, binding.calls = self._changes, 0
        if binding.graph is None and self._graphs_work and binding.calls >= _GRAPH_AFTER:
            self._record(binding)
        if binding.graph:
            try:
                return binding.graph.launch()
            except RuntimeError as e:
                self._give_graphs_up(e)
        binding.calls += 1
        self._tell_addresses(binding.addresses)
        if not self._execute():
            raise EngineRunError(self._library.explain(f"{self.provider} failed in a step"))

    def _execute(self) -> bool:
        return bool(self._context.execute_async_v3(stream_handle=int(self.stream.handle)))

    def _make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Buffers for calls of these shapes; what is large enough stays."""
        need = {name: _nbytes(self.inputs[name], shape) for name, shape in shapes.items()} | self.output_nbytes(shapes)
        for name, nbytes in need.items():
            if name in self._buffers and self._buffers[name].nbytes < nbytes:
                self._buffers.pop(name).free()
            if name not in self._buffers:
                self._buffers[name] = Buffer(self.device, nbytes)
        self._calls = Binding(dict(shapes), {name: self._buffers[name].address for name in need})

    def _tell_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        told = self._told_shapes
        if told == shapes:
            return
        self._changes += 1
        self._forget_graphs()
        for name, shape in shapes.items():
            if told.get(name) == shape:
                continue
            told.pop(name, None)
            if not self._context.set_input_shape(name, shape):
                least, _, most = (tuple(s) for s in self._engine.get_tensor_profile_shape(name, 0))
                raise EngineRunError(
                    self._library.explain(f"input '{name}': found shape {shape}, this plan takes {least} to {most}")
                )
            told[name] = shape
        if missing := self._context.infer_shapes():
            told.clear()
            raise EngineRunError(self._library.explain(f"TensorRT cannot tell its outputs' shapes: {missing} are open"))

    def _tell_addresses(self, addresses: Mapping[str, int]) -> None:
        told = self._told_addresses
        for name, address in addresses.items():
            if told.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    raise EngineRunError(self._library.explain(f"'{name}': TensorRT refuses its address"))
                told[name] = address

    def _record(self, binding: Binding) -> None:
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable and not capturable(int(self.stream.handle)):
            return  # TensorRT-RTX still compiles for these shapes; a later call may be recorded
        self._tell_addresses(binding.addresses)
        try:
            binding.graph = Graph(self.stream, self._execute)
            self._recorded.append(binding)
        except (RuntimeError, OSError, AttributeError) as e:  # no such function in the driver, or a network that cannot
            self._give_graphs_up(e)

    def _give_graphs_up(self, reason: Exception) -> None:
        log.info("%s: without CUDA graphs: %s", self.provider, self._library.explain(str(reason)))
        self._graphs_work = False
        self._forget_graphs()

    def _forget_graphs(self, bindings: Sequence[Binding] | None = None) -> None:
        """What they hold of shapes and addresses is not true any more; all, or those of `bindings`."""
        stale = [binding for binding in self._recorded if bindings is None or binding in bindings]
        if stale:
            self.stream.synchronize()
        for binding in stale:
            if binding.graph:
                binding.graph.free()
            binding.graph = None
            self._recorded.remove(binding)


def _nbytes(spec: TensorSpec, shape: tuple[int, ...]) -> int:
    if any(size < 0 for size in shape):
        raise EngineRunError(f"'{spec.name}': its shape {shape} depends on data, expected one that the inputs' shapes give")
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
