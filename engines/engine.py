"""One network call, whatever library makes it. Knows tensors, no job, topic or board.

EngineError                  everything that can go wrong here
|- EngineUnavailable         the backend's library or device is not on this machine
|- EngineLoadError           this file does not become an engine
`- EngineRunError            the call failed, or was fed the wrong tensors
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class EngineError(RuntimeError):
    """A network could not be opened or run; maps to the contract's code `engine`."""


class EngineUnavailable(EngineError):
    """The backend's library or device is not on this machine."""


class EngineLoadError(EngineError):
    """The file is missing, damaged or of a form that the backend refuses."""


class EngineRunError(EngineError):
    """A call was fed the wrong tensors, or the backend failed in it."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of one input or output; a free dimension is its symbol, as a string."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Engine(Protocol):
    """A loaded network, ready to run. Used by one thread at a time."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    provider: str
    """What really computes, in the backend's own word (`CPUExecutionProvider`); never a wish."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One forward pass. Every input must be fed with its dtype and shape, else `EngineRunError`.

        The returned arrays belong to the engine and are overwritten by the next call.
        """

    def close(self) -> None:
        """Gives the memory back; no call may follow."""


def open_engine(path: Path, backend: str = "onnxruntime", threads: int = 1) -> Engine:
    """Loads the network at `path`; `EngineUnavailable` names what is missing, never a silent substitute."""
    if backend == "onnxruntime":
        from .onnxrt import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads)
    raise EngineUnavailable(f"backend '{backend}' is not built into this version; use engine.backend: onnxruntime")


def check_feeds(inputs: Mapping[str, TensorSpec], feeds: Mapping[str, np.ndarray]) -> None:
    """Names, dtypes and shapes of `feeds` against `inputs`; free dimensions must agree with each other."""
    if feeds.keys() != inputs.keys():
        raise EngineRunError(f"expected inputs {sorted(inputs)}, found {sorted(feeds)}")
    free: dict[str, int] = {}
    for name, spec in inputs.items():
        array = feeds[name]
        if array.dtype.name != spec.dtype:
            raise EngineRunError(f"input '{name}': expected {spec.dtype}, found {array.dtype.name}")
        if len(array.shape) != len(spec.shape):
            raise EngineRunError(f"input '{name}': expected shape {spec.shape}, found {array.shape}")
        for want, have in zip(spec.shape, array.shape):
            if (free.setdefault(want, have) if isinstance(want, str) else want) != have:
                raise EngineRunError(f"input '{name}': expected shape {spec.shape}, found {array.shape}")


def preload(backend: str) -> None:
    """Imports the backend's library so that processes forked from this one share it; opens no network and no device.

    What it starts threads for, or a device, in the mere import is left to the process that uses it.
    """
    if backend == "onnxruntime":
        from .onnxrt import library

        library()
