"""onnxruntime behind the engine protocol. The only file that imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .engine import EngineLoadError, EngineRunError, EngineUnavailable, TensorSpec, check_feeds

_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool",
}  # fmt: skip


def library() -> Any:
    """The module onnxruntime; `EngineUnavailable` where it does not import."""
    # Its official builds now report to their maker, and keep a device id in ~/.cache, unless told so before the
    # import (its Privacy.md). A gateway tells nobody.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except Exception as e:  # a wheel built for other instructions fails with more than ImportError
        raise EngineUnavailable(f"onnxruntime does not import ({e}); install it: pip install onnxruntime") from e
    return onnxruntime


class OnnxRuntimeEngine:
    """An ONNX file on onnxruntime's CPU provider, with an explicit number of threads and no spinning between calls."""

    def __init__(self, path: Path, threads: int = 1, providers: tuple[str, ...] = ("CPUExecutionProvider",)):
        ort = library()
        missing = [p for p in providers if p not in ort.get_available_providers()]
        if missing:
            raise EngineUnavailable(
                f"onnxruntime {ort.__version__} has no {missing[0]}; it offers {', '.join(ort.get_available_providers())}"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning between the steps of a paced job burns watts for nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as e:  # onnxruntime's errors have no common base of their own
            raise EngineLoadError(f"{path}: onnxruntime cannot load it: {_first_line(e)}") from e
        self.provider: str = self._session.get_providers()[0]
        self.inputs = {i.name: _spec(i) for i in self._session.get_inputs()}
        self.outputs = {o.name: _spec(o) for o in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        check_feeds(self.inputs, feeds)
        try:
            return dict(zip(self.outputs, self._session.run(None, dict(feeds))))
        except Exception as e:
            raise EngineRunError(f"onnxruntime failed in a step: {_first_line(e)}") from e

    def close(self) -> None:
        """See `Engine.close`."""
        del self._session


def _spec(node: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else str(d) for d in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
