"""Builds a TensorRT plan from an ONNX file into the cache. Minutes on a board, so it is made to run as a child:

    python -m denoised.engines.trt_build ONNX CACHE [--ranges JSON] [--gpu JSON]

It runs at low priority, is the first to go where memory ends, and says on stdout how far it is, one JSON object a line:
`{"progress": 0.42, "phase": "Timing tactics", "elapsed_s": 61.0, "eta_s": 84.2}`, at the end `{"plan": PATH}` or
`{"error": TEXT}`. SIGTERM, or an end of whoever reads, cancels it, in 5 seconds at most. Exit status 0 done, 1 failed,
75 cancelled. Precision is what the ONNX file says (strongly typed): a variant is a file.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .engine import EngineError, EngineLoadError, EngineUnavailable, TensorSpec
from .trt_library import Gpu, Library, load_library, memory_available, probe
from .trt_plans import ANY_RANGE, OPTIONS, Identity, Ranges, Sidecar, identify, keep, keep_timing, look_up, sweep, timing_cache

Progress = Callable[[float, str], bool]
"""(share done 0..1, phase in TensorRT's words) -> go on? Called from threads of TensorRT."""
CANCELLED = 75
"""Exit status of a child that was cancelled; EX_TEMPFAIL of sysexits.h."""
_PATIENCE_S = 5.0
"""TensorRT looks at a cancel between tactics; one that takes longer than this is not waited for."""


class BuildCancelled(EngineError):
    """Whoever wanted the plan does not want it any more."""


def find_plan(onnx: Path, cache: Path, gpu: Gpu, ranges: Ranges | None = None) -> Path | None:
    """The plan of this network for this TensorRT, GPU and ranges, or None: then `build` it.

    `EngineLoadError` where building it again is pointless, `EngineUnavailable` without TensorRT.
    """
    return look_up(identify(onnx, load_library().name, gpu, ranges or {}), cache)


def build(
    onnx: Path, cache: Path, gpu: Gpu, ranges: Ranges | None = None, progress: Progress = lambda done, phase: True
) -> Path:
    """Builds the plan that `find_plan` then finds, whether it is there already or not; one build per cache at a time.

    `EngineLoadError`: TensorRT does not take this network, and why. `BuildCancelled`: `progress` said so.
    """
    library = load_library()
    identity = identify(onnx, library.name, gpu, ranges or {})
    look_up(identity, cache)  # raises where TensorRT refused what it had built before
    try:
        with _alone(cache):
            sweep(cache)
            return _build(onnx, cache, gpu, identity, library, progress)
    except OSError as e:
        raise EngineError(f"{e.filename or cache}: {e.strerror}; a plan needs room in cache_dir") from e


def _build(onnx: Path, cache: Path, gpu: Gpu, identity: Identity, library: Library, progress: Progress) -> Path:
    began, trt = time.monotonic(), library.trt
    library.errors.clear()
    try:
        builder = trt.Builder(library.logger)
    except TypeError as e:  # of a null handle: no GPU, or a driver older than this TensorRT
        raise EngineUnavailable(library.explain(f"{library.name} cannot build here")) from e
    kinds = trt.NetworkDefinitionCreationFlag  # 11.x knows nothing else and says so by the flag's absence or in vain
    network = builder.create_network(1 << int(kinds.STRONGLY_TYPED) if hasattr(kinds, "STRONGLY_TYPED") else 0)
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(onnx)) or network.num_outputs == 0:  # an empty file is an empty network to it
        flaws = "; ".join(_flaw(parser.get_error(i)) for i in range(min(parser.num_errors, 5)))
        library.errors.clear()  # the same again
        raise EngineLoadError(f"{onnx}: {library.name} cannot read it: {flaws or 'there is no network in it'}")
    inputs = tuple(_spec(trt, network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(trt, network.get_output(i)) for i in range(network.num_outputs))

    config = builder.create_builder_config()
    # The default is the whole memory of the device, which on a board is that of everyone.
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, memory_available(gpu.free_bytes) // 4)
    config.builder_optimization_level = OPTIONS["optimization_level"]
    config.clear_flag(trt.BuilderFlag.TF32)
    _set_profile(builder, config, inputs, identity)
    if hasattr(config, "set_compute_capability"):  # TensorRT-RTX asks for which GPU; TensorRT builds for the one here
        config.num_compute_capabilities = 1
        here = getattr(trt.ComputeCapability, f"SM{gpu.capability.replace('.', '')}", trt.ComputeCapability.CURRENT)
        config.set_compute_capability(here, 0)
    known = _use_times(config, identity, cache)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor

    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise BuildCancelled(f"{onnx}: the build was cancelled")
    if plan is None:
        raise EngineLoadError(library.explain(f"{onnx}: {library.name} cannot build it"))
    if known:
        with contextlib.suppress(OSError):  # for want of it the next build is slow, no more
            keep_timing(timing_cache(identity, cache), memoryview(config.get_timing_cache().serialize()))
    path = identity.plan(cache)
    sidecar = Sidecar(identity, inputs=inputs, outputs=outputs, built_s=round(time.monotonic() - began, 1))
    keep(path, memoryview(plan), sidecar)
    library.errors.clear()
    return path


def _use_times(config: Any, identity: Identity, cache: Path) -> Any:
    """The timing cache in use, to be kept alive until the build ends; None for TensorRT-RTX, which measures nothing here."""
    if not identity.library.startswith("tensorrt "):
        return None
    path = timing_cache(identity, cache)
    for blob in (path.read_bytes() if path.is_file() else b"", b""):  # one that does not fit after all: an empty one
        known = config.create_timing_cache(blob)
        if known and config.set_timing_cache(known, ignore_mismatch=False):
            return known
    return None


def _set_profile(builder: Any, config: Any, inputs: tuple[TensorSpec, ...], identity: Identity) -> None:
    """One optimisation profile for all free dimensions together."""
    free = [spec for spec in inputs if any(isinstance(size, str) for size in spec.shape)]
    if not free:
        return
    profile = builder.create_optimization_profile()
    for spec in free:
        ends = [
            tuple(identity.ranges.get(size, ANY_RANGE)[end] if isinstance(size, str) else size for size in spec.shape)
            for end in range(3)
        ]
        try:
            profile.set_shape(spec.name, *ends)
        except (ValueError, RuntimeError) as e:
            raise EngineLoadError(f"input '{spec.name}': TensorRT refuses the shapes {ends}: {e}") from e
    if config.add_optimization_profile(profile) < 0:
        raise EngineLoadError(f"TensorRT refuses the ranges {identity.ranges} of {identity.network}")


def dtypes(trt: Any) -> dict[Any, str]:
    """TensorRT's types that numpy has, by numpy's name."""
    t = trt.DataType
    return {
        t.FLOAT: "float32", t.HALF: "float16", t.INT64: "int64", t.INT32: "int32",
        t.INT8: "int8", t.UINT8: "uint8", t.BOOL: "bool",
    }  # fmt: skip


def _spec(trt: Any, tensor: Any) -> TensorSpec:
    """Free dimensions by the symbol of the ONNX file; ours where it gives none, as for outputs."""
    shape = tuple(
        int(size) if size >= 0 else tensor.get_dimension_name(axis) or f"{tensor.name}.{axis}"
        for axis, size in enumerate(tensor.shape)
    )
    dtype = dtypes(trt).get(tensor.dtype)
    if dtype is None:
        raise EngineLoadError(f"'{tensor.name}' is {tensor.dtype}, which numpy does not have; let it be float32 or float16")
    return TensorSpec(tensor.name, dtype, shape)


def _flaw(error: Any) -> str:
    at = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_name() or error.node_operator() else ""
    return f"{at}{' '.join(error.desc().split())}"


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Nested phases of so many steps each, told from several threads, to one share that never falls."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._lock = threading.Lock()
            self._phases: dict[str, list[Any]] = {}  # name -> [parent, steps, done], outermost first
            self._share = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            with self._lock:
                self._phases[name] = [parent, max(steps, 1), 0]
            self._tell(name)

        def phase_finish(self, name: str) -> None:
            with self._lock:
                self._phases.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            with self._lock:
                if name in self._phases:
                    self._phases[name][2] = step + 1
            return self._tell(name)

        def _tell(self, name: str) -> bool:
            with self._lock:
                self._share = max(self._share, min(self._done(None), 1.0))
                share = self._share
            try:
                if not progress(share, name):
                    self.cancelled = True
            except Exception:  # whoever listened is gone, and nothing may be raised into TensorRT
                self.cancelled = True
            return not self.cancelled

        def _done(self, parent: str | None) -> float:
            """Share done of the phase that runs inside `parent`."""
            for name, (above, steps, done) in self._phases.items():
                if above == parent:
                    return (done + self._done(name)) / steps if done < steps else 1.0
            return 0.0

    return Monitor()


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Two builds at once would not fit a board's memory; the lock goes with the process that holds it."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(f"another build is at work in {cache}; wait for it or end it") from None
        yield


def at_work(cache: Path) -> bool:
    """Whether a build is under way in this cache, whoever has started it."""
    with contextlib.suppress(FileNotFoundError, PermissionError), (cache / "build.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def main() -> None:
    """See the module."""
    options = argparse.ArgumentParser(prog="python -m denoised.engines.trt_build", description="Builds a TensorRT plan.")
    options.add_argument("onnx", type=Path)
    options.add_argument("cache", type=Path)
    options.add_argument("--ranges", type=_ranges, default={}, help="JSON: free dimension -> [least, usual, most]")
    options.add_argument("--gpu", type=json.loads, help="JSON: what a probe found, instead of a probe of one's own")
    wanted = options.parse_args()
    stop = threading.Event()
    _watch(stop)
    with contextlib.suppress(OSError):
        os.nice(10)
    with contextlib.suppress(OSError):  # where memory ends, the kernel shall take this one first
        Path("/proc/self/oom_score_adj").write_text("800")
    began, told = time.monotonic(), [-1.0]

    def progress(share: float, phase: str) -> bool:
        elapsed = time.monotonic() - began
        if elapsed - told[0] >= 0.5 or told[0] < 0:
            told[0] = elapsed
            line = {"progress": round(share, 4), "phase": phase, "elapsed_s": round(elapsed, 1)}
            if not _say({**line, "eta_s": round(elapsed * (1 - share) / share, 1)} if share > 0.05 else line):
                stop.set()
                os.kill(os.getpid(), signal.SIGTERM)
        return not stop.is_set()

    try:
        gpu = Gpu(**wanted.gpu) if wanted.gpu else probe()
        plan = build(wanted.onnx, wanted.cache, gpu, wanted.ranges, progress)
        _say({"progress": 1.0, "phase": "written", "elapsed_s": round(time.monotonic() - began, 1)})
        _leave({"plan": str(plan)}, 0)
    except BuildCancelled as e:
        _leave({"error": str(e)}, CANCELLED)
    except EngineError as e:
        _leave({"error": str(e)}, 1)


def _ranges(text: str) -> dict[str, tuple[int, int, int]]:
    return {symbol: (int(least), int(usual), int(most)) for symbol, (least, usual, most) in dict(json.loads(text)).items()}


def _watch(stop: threading.Event) -> None:
    """SIGTERM comes to a thread that waits for it: the main thread is inside TensorRT, where Python hears no signal."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before TensorRT makes threads, which inherit it

    def wait() -> None:
        signal.sigwait(signals)
        stop.set()
        time.sleep(_PATIENCE_S)
        os._exit(CANCELLED)  # what is written is whole or not there

    threading.Thread(target=wait, daemon=True).start()


def _say(line: dict[str, Any]) -> bool:
    """Whether anybody reads it."""
    try:
        print(json.dumps(line), flush=True)
    except OSError:
        return False
    return True


def _leave(line: dict[str, Any], status: int) -> None:
    if not _say(line):
        os._exit(status)  # Python would try once more and end with a status of its own
    sys.exit(status)


if __name__ == "__main__":
    main()
