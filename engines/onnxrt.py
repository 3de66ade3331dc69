"""onnxruntime behind the engine protocol. The only file that imports it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .engine import EngineLoadError, EngineRunError, EngineUnavailable, TensorSpec, check_bind, check_feeds
from .host import HostBound

_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool",
}  # fmt: skip


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeEngine:
    """An ONNX file on one of onnxruntime's providers, with an explicit number of threads and no spinning between calls.

    On a GPU the arrays of the loop stay numpy's: onnxruntime copies x there and the answer back at every step.
    """

    def __init__(self, path: Path, threads: int = 1, provider: str = "cpu"):
        # Its official builds now report to their maker, and keep a device id in ~/.cache, unless told so before the
        # import (its Privacy.md). A gateway tells nobody.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            import onnxruntime as ort
        except Exception as e:  # a wheel built for other instructions fails with more than ImportError
            raise EngineUnavailable(f"onnxruntime does not import ({e}); install it: pip install onnxruntime") from e
        wanted = _PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise EngineUnavailable(
                f"onnxruntime {ort.__version__} has no {wanted}; it offers {', '.join(ort.get_available_providers())}. "
                f"Install a build that has it, or set engine.provider: cpu"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.use_deterministic_compute = True
        # Plans of memory are kept for every shape that was ever seen; without them a call is no slower (docs/performance.md).
        options.enable_mem_pattern = False
        # Spinning between the steps of a paced job burns watts for nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            with warnings.catch_warnings():  # that it fell back is said below, as an error
                warnings.simplefilter("ignore")
                self._session = ort.InferenceSession(str(path), options, providers=[wanted])
        except Exception as e:  # onnxruntime's errors have no common base of their own
            raise EngineLoadError(f"{path}: onnxruntime cannot load it: {_first_line(e)}") from e
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted:
            raise EngineUnavailable(
                f"onnxruntime fell back to {self.provider}: {wanted} does not start on this machine (driver, device or a "
                f"library of it is missing). Mend that, or set engine.provider: cpu"
            )
        self.inputs = {i.name: _spec(i) for i in self._session.get_inputs()}
        self.outputs = {o.name: _spec(o) for o in self._session.get_outputs()}
        named = {d for spec in self.inputs.values() for d in spec.shape}
        self._sizes_unknown = any(isinstance(d, str) and d not in named for spec in self.outputs.values() for d in spec.shape)
        self._calls, self._bounds = _Shelf(), _Shelf()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        check_feeds(self.inputs, feeds)
        try:
            if self._sizes_unknown:
                return dict(zip(self.outputs, self._session.run(None, dict(feeds))))
            shapes = tuple(feeds[name].shape for name in self.inputs)
            call = self._calls.take(shapes) or _Call(self._session, self.inputs, self.outputs, feeds)
            self._calls.give(shapes, call)
            return call.run(feeds)
        except Exception as e:
            raise EngineRunError(f"onnxruntime failed in a call: {_first_line(e)}") from e

    def bind(self, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> _Bound:
        """See `Engine.bind`; the answer is the first output."""
        answer = next(iter(self.outputs.values()))
        if answer.shape != self.inputs["x"].shape or answer.dtype != self.inputs["x"].dtype:
            raise EngineRunError(f"output '{answer.name}' is {answer.shape}, but a denoiser's has x's shape and dtype")
        check_bind(self.inputs, x, conditions)
        constant = [name for name in self.inputs if name not in ("x", "t")]
        shapes: tuple[Any, ...] = tuple(condition[name].shape for condition in conditions for name in constant)
        shapes += x.shape, len(conditions)
        bound = self._bounds.take(shapes) or _Bound(self._session, answer.name, x, conditions, self._bounds, shapes)
        bound.load(conditions)
        return bound

    def close(self) -> None:
        """See `Engine.close`."""
        self._calls.clear()
        self._bounds.clear()
        del self._session


class _Shelf:
    """Buffers that wait for the next problem of their shapes; those of the shapes used longest ago are given up.

    Few, so that shapes that keep changing do not fill the memory.
    """

    def __init__(self, room: int = 4):
        self._room = room
        self._waiting: dict[tuple[Any, ...], Any] = {}

    def take(self, shapes: tuple[Any, ...]) -> Any:
        """What waits for these shapes, or None."""
        return self._waiting.pop(shapes, None)

    def give(self, shapes: tuple[Any, ...], buffers: Any) -> None:
        """Kept as the newest; of what has the same shapes one is enough."""
        if shapes in self._waiting:
            self._waiting.pop(shapes).free()
        self._waiting[shapes] = buffers
        while len(self._waiting) > self._room:
            self._waiting.pop(next(iter(self._waiting))).free()

    def clear(self) -> None:
        """Gives everything up."""
        for buffers in self._waiting.values():
            buffers.free()
        self._waiting.clear()


class _Call:
    """Buffers of one shape of call, bound to the session."""

    def __init__(self, session: Any, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], feeds: Any):
        self._session, self._binding = session, session.io_binding()
        sizes = {d: n for name, spec in inputs.items() for d, n in zip(spec.shape, feeds[name].shape)}
        self._in = {name: np.empty(array.shape, array.dtype) for name, array in feeds.items()}
        self._out = {name: np.empty([sizes.get(d, d) for d in spec.shape], spec.dtype) for name, spec in outputs.items()}
        for name, array in self._in.items():
            _bind(self._binding.bind_input, name, array)
        for name, array in self._out.items():
            _bind(self._binding.bind_output, name, array)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in feeds.items():
            np.copyto(self._in[name], array)
        self._session.run_with_iobinding(self._binding)
        return self._out

    def free(self) -> None:
        """Nothing else holds the buffers."""


class _Bound(HostBound):
    """See `engine.Bound`. Every condition has a binding of its own; all share x, t and the answer."""

    def __init__(
        self, session: Any, answer: str, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]],
        shelf: _Shelf, shapes: tuple[Any, ...],
    ):  # fmt: skip
        super().__init__(x.shape, x.dtype)
        self._session, self._shelf, self._shapes = session, shelf, shapes
        self._t = np.empty(len(x), np.float32)
        self._conditions = [{name: np.empty(array.shape, array.dtype) for name, array in each.items()} for each in conditions]
        self._bindings = []
        for each in self._conditions:
            binding = session.io_binding()
            for name, array in {"x": self.slots[0], "t": self._t, **each}.items():
                _bind(binding.bind_input, name, array)
            _bind(binding.bind_output, answer, self.slots[1])
            self._bindings.append(binding)

    def load(self, conditions: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Copies the constant inputs in."""
        for mine, given in zip(self._conditions, conditions):
            for name, array in given.items():
                np.copyto(mine[name], array)

    def call(self, condition: int, t: float) -> None:
        """See `engine.Bound.call`."""
        self._t.fill(t)
        try:
            self._session.run_with_iobinding(self._bindings[condition])
        except Exception as e:
            raise EngineRunError(f"onnxruntime failed in a step: {_first_line(e)}") from e

    def close(self) -> None:
        """See `engine.Bound.close`."""
        self._shelf.give(self._shapes, self)

    def free(self) -> None:
        """What was prepared calls back here: without it the buffers go at once, not with the next search for cycles."""
        self.programs.clear()


def _bind(bind: Any, name: str, array: np.ndarray) -> None:
    bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _spec(node: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else str(d) for d in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
