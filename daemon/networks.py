"""The networks that a worker has open, by model, variant, name and number of threads; opened when they are first asked for.

Next to nothing is ever closed: a worker that holds too much is replaced. Where memory is short, networks that are open for
another number of threads make room.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..config.tree import Config
from ..engines.bundle import Bundle, BundleError
from ..engines.engine import (
    Engine,
    EngineLoadError,
    EngineNotBuilt,
    EngineRunError,
    EngineUnavailable,
    TensorSpec,
    open_engine,
)
from ..engines.trt_library import known_gpu, memory_available

log = logging.getLogger(__name__)

_FOOTPRINT = 4
"""Memory that a loaded network takes, as a multiple of its file: weights, their packed copy, activations; rounded up."""


class Networks:
    """Used by one thread. `threads`: for devices that have no use for another number; `say(message)`: to the supervisor."""

    def __init__(self, config: Config, threads: int, say: Callable[[Mapping[str, Any]], None]):
        self._config, self._threads, self._say = config, threads, say
        self._engines: dict[tuple[str, str, str, int], Engine] = {}
        self.opened_s = 0.0
        """What opening them has taken so far."""

    @property
    def providers(self) -> list[str]:
        """What computes."""
        return sorted({engine.provider for engine in self._engines.values()})

    def of(self, bundle: Bundle, variant: str, threads: int) -> list[Engine]:
        """All networks of a variant."""
        return [self.network(bundle, variant, name, threads) for name in bundle.manifest.variants[variant]]

    def provider(self, bundle: Bundle, variant: str, threads: int) -> str:
        """What computes this variant: more than one name where a part of it has still to be built for another one."""
        return ", ".join(sorted({engine.provider for engine in self.of(bundle, variant, threads)}))

    def warm(self, bundle: Bundle, variant: str, threads: int) -> float:
        """Opens a variant and runs it once, as the first call of a network is slow; the seconds that the calls took."""
        engines = self.of(bundle, variant, threads)
        began = time.monotonic()
        for engine in engines:
            engine.run(zeros(engine.inputs, bundle.manifest.ranges))
        return time.monotonic() - began

    def network(self, bundle: Bundle, variant: str, name: str, threads: int, spare: bool = False) -> Engine:
        """One network. spare: no job can be using what is open for another number of threads."""
        settings = self._config.engine
        on_gpu = settings.backend == "tensorrt" or settings.provider != "cpu"
        key = (bundle.sha256, variant, name, self._threads if on_gpu else threads)  # a GPU has no use for another number
        if key not in self._engines:
            files = bundle.manifest.variants[variant]
            if name not in files:
                raise BundleError(f"{bundle.folder}: variant {variant} has no network '{name}', only {', '.join(files)}")
            try:
                must_fit(bundle.file(files[name]))
            except EngineUnavailable:
                if not (spare and self._spared(key[-1])):
                    raise
                must_fit(bundle.file(files[name]))
            began = time.monotonic()
            self._engines[key] = self._open(bundle, variant, name, bundle.verified(files[name]), key[-1])
            self.opened_s += time.monotonic() - began
        return self._engines[key]

    def _spared(self, threads: int) -> bool:
        """Closes what is open for another number of threads; whether there was any."""
        others = [key for key in self._engines if key[-1] != threads]
        for key in others:
            self._engines.pop(key).close()
        return bool(others)

    def _open(self, bundle: Bundle, variant: str, name: str, onnx: Path, threads: int) -> Engine:
        """As the config wants it; where that has still to be built, onnxruntime meanwhile, and the supervisor is told."""
        settings, ranges = self._config.engine, bundle.manifest.ranges
        wanted = (onnx, settings.backend, threads, settings.provider, self._config.plans_dir, ranges)
        try:
            try:
                return open_engine(*wanted)
            except EngineLoadError as e:
                if settings.backend != "tensorrt":
                    raise
                log.warning("%s", e)
                return open_engine(*wanted)  # a plan that may not be loaded is gone now; else the same error again
        except EngineNotBuilt as e:
            log.warning("model %s, %s %s: onnxruntime computes meanwhile: %s", bundle.manifest.name, variant, name, e)
            build = {"model": bundle.manifest.name, "variant": variant, "name": name, "onnx": str(onnx), "ranges": ranges}
            self._say({"type": "build", **build, "gpu": asdict(known_gpu())})
            return open_engine(onnx, "onnxruntime", threads, settings.provider)


def zeros(inputs: Mapping[str, TensorSpec], ranges: Mapping[str, tuple[int, int, int]]) -> dict[str, np.ndarray]:
    """Something of the right form to feed a network, free dimensions at their smallest that is no special case."""

    def size(d: int | str) -> int:
        least, _, most = ranges.get(str(d), (1, 2, 2))
        return d if isinstance(d, int) else min(max(2, least), most)

    return {name: np.zeros([size(d) for d in spec.shape], spec.dtype) for name, spec in inputs.items()}


def must_fit(onnx: Path) -> None:
    """A network that would push the machine into its swap is not loaded: it would be a hundred times as slow, or be killed."""
    needed, free = _FOOTPRINT * (onnx.stat().st_size if onnx.exists() else 0), memory_available(sys.maxsize)
    if needed > free:
        raise EngineUnavailable(
            f"{onnx}: needs some {needed / 1e6:.0f} MB of memory, {free / 1e6:.0f} MB are available; "
            f"a network of up to {free / _FOOTPRINT / 1e6:.0f} MB would fit now"
        )


def may_pass(error: Exception) -> bool:
    """Whether the same may work later: a device that is not there yet, a call that failed; never a file that is no network."""
    return isinstance(error, (EngineUnavailable, EngineRunError))
