"""One network call, whatever library makes it. Knows tensors, no job, topic or board.

EngineError                  everything that can go wrong here
|- EngineUnavailable         the backend's library or device is not on this machine
|  `- EngineNotBuilt         what it runs has still to be built here
|- EngineLoadError           this file does not become an engine
`- EngineRunError            the call failed, or was fed the wrong tensors
   `- EngineLost             the device refuses all further work of this process
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class EngineError(RuntimeError):
    """A network could not be opened or run; maps to the contract's code `engine`."""


class EngineUnavailable(EngineError):
    """The backend's library or device is not on this machine."""


class EngineNotBuilt(EngineUnavailable):
    """Library and device are here, but the network has still to be compiled for them: see `trt_build`."""


class EngineLoadError(EngineError):
    """The file is missing, damaged or of a form that the backend refuses."""


class EngineRunError(EngineError):
    """A call was fed the wrong tensors, or the backend failed in it."""


class EngineLost(EngineRunError):
    """The device refuses all further work of this process: only a new one can go on."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of one input or output; a free dimension is its symbol, as a string."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Bound(Protocol):
    """A network made ready for one trajectory: its constant inputs in place, x and the sampler's arrays where it computes.

    The denoising loop works on arrays of the engine's own kind, all of x's shape and dtype, of which it knows only that
    `np.asarray` brings them to the host (numpy arrays, or a device array with `__array__`, which waits for the device).
    Everything in one Bound happens in order; nothing else needs to wait.
    """

    slots: list[Any]
    """[x: what the network is fed, its answer, then arrays that loops have asked for]; loops append what `array` gives."""
    programs: dict[Any, Any]
    """What loops have prepared on these arrays, by their own keys; it lives and dies with the arrays."""

    def array(self) -> Any:
        """One more array of x's shape and dtype, kept until the Bound goes."""

    def store(self, array: Any, host: np.ndarray) -> None:
        """Copies `host` into one of the arrays."""

    def call(self, condition: int, t: float) -> None:
        """slots[1] = network(slots[0], t) with the constant inputs number `condition`; t is the same for all rows."""

    def prepare(
        self, outs: Sequence[Any], weights: Sequence[Sequence[float]], ins: Sequence[Any], where: Any = None
    ) -> Callable[[], None]:
        """A function that sets outs[j] to the weighted sum of `ins` and outs[0] ... outs[j - 1], weights in weights[j].

        Only the last of `outs` may be among `ins`. With `where` (an array; then there is one out) only cells in which it
        is not 0 are written. At most 4 outs and 8 ins. The answer, slots[1], may be used up: it is not read again before the
        next `call`. The function is called many times, as `call` and it follow each
        other: on a GPU it is one launch of one element-wise kernel.
        """

    def close(self) -> None:
        """The trajectory is over: the buffers may serve the next one."""


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

    def bind(self, x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> Bound:
        """Ready for a trajectory from arrays shaped as `x` (B, ...): inputs beside `x` and `t` are constant, per condition.

        Bounds that are open at the same time share no buffers; one that is closed is used again for the same shapes, so
        that a repeated problem finds everything in place.
        """

    def close(self) -> None:
        """Gives the memory back; no call may follow."""


def open_engine(
    path: Path,
    backend: str = "onnxruntime",
    threads: int = 1,
    provider: str = "cpu",
    cache: Path | None = None,
    ranges: Mapping[str, tuple[int, int, int]] | None = None,
) -> Engine:
    """Loads the network at `path`; `EngineUnavailable` names what is missing, never a silent substitute.

    `provider` is where onnxruntime computes. For tensorrt `cache` is the folder of its plans, and `ranges` says how large
    the free dimensions may be, by symbol: (least, usual, most). `EngineNotBuilt` where no plan of this network, machine and
    ranges is there yet.
    """
    if backend == "onnxruntime":
        from .onnxrt import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, threads, provider)
    if backend == "tensorrt":
        from .trt import open_plan

        return open_plan(path, cache, ranges or {})
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


def check_bind(inputs: Mapping[str, TensorSpec], x: np.ndarray, conditions: Sequence[Mapping[str, np.ndarray]]) -> None:
    """The same for what a trajectory is bound with, where `t` comes with each call."""
    without_t = {name: spec for name, spec in inputs.items() if name != "t"}
    for condition in conditions:
        check_feeds(without_t, {"x": x, **condition})


def preload(backend: str) -> None:
    """Imports the backend's library so that processes forked from this one share it; opens no network and no device.

    What it starts threads for, or a device, in the mere import is left to the process that uses it.
    """
    if backend == "onnxruntime":
        from .onnxrt import library

        library()
