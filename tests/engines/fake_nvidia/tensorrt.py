"""The part of `tensorrt` 10.3 that we use, with its rules, on `fake_gpu`; onnxruntime does the network's arithmetic.

A plan is the ONNX file with a header and a sum. Refused: a call before every shape and address is told, shapes outside the
profile, addresses of memory that is not allocated or too small, a call without a context in this thread, a damaged plan.
"""

from __future__ import annotations

import enum
import itertools
import json
import os
import threading
import time
import zlib
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from fake_gpu import Broken, gpu

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
_MAGIC = b"fake plan "
_STEP_S = float(os.environ.get("FAKE_TENSORRT_STEP_S", "0"))
"""How long a step of a build takes."""
_CANNOT = os.environ.get("FAKE_TENSORRT_CANNOT", "")
"""Why it builds nothing."""


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):
    TF32 = 0


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


_TYPES = {1: DataType.FLOAT, 10: DataType.HALF, 7: DataType.INT64, 6: DataType.INT32, 9: DataType.BOOL}
_NUMPY = {
    DataType.FLOAT: "float32",
    DataType.HALF: "float16",
    DataType.INT64: "int64",
    DataType.INT32: "int32",
    DataType.BOOL: "bool",
}


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        self._ready = True

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


def _complain(logger: ILogger, message: str) -> None:
    """From a thread of TensorRT's own."""
    if not logger._ready:
        raise TypeError("ILogger.__init__ was not called")
    thread = threading.Thread(target=logger.log, args=(ILogger.ERROR, message))
    thread.start()
    thread.join()


class IProgressMonitor:
    def __init__(self) -> None:
        self._ready = True

    def phase_start(self, name: str, parent: str | None, steps: int) -> None: ...
    def phase_finish(self, name: str) -> None: ...

    def step_complete(self, name: str, step: int) -> bool:
        raise NotImplementedError


class ITensor:
    def __init__(self, value: Any):
        self.name, self.dtype = value.name, _TYPES[value.type.tensor_type.elem_type]
        dims = value.type.tensor_type.shape.dim
        self.shape = tuple(-1 if d.dim_param else d.dim_value for d in dims)
        self._symbols = [d.dim_param for d in dims]

    def get_dimension_name(self, axis: int) -> str:
        return self._symbols[axis]


class INetworkDefinition:
    def __init__(self) -> None:
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self._model = b""

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, i: int) -> ITensor:
        return self._inputs[i]

    def get_output(self, i: int) -> ITensor:
        return self._outputs[i]


class ParserError:
    def __init__(self, words: str):
        self._words = words

    def desc(self) -> str:
        return self._words

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return ""


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger):
        self._network, self._errors = network, list[ParserError]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, i: int) -> ParserError:
        return self._errors[i]

    def parse_from_file(self, path: str) -> bool:
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
        except Exception as e:
            self._errors.append(ParserError(f"Failed to parse the ONNX model: {e}"))
            return False
        network = self._network
        network._inputs, network._outputs = [ITensor(v) for v in model.graph.input], [ITensor(v) for v in model.graph.output]
        network._model = model.SerializeToString()
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self._shapes[name] = [tuple(least), tuple(usual), tuple(most)]


class ITimingCache:
    def __init__(self, blob: bytes):
        self._blob = blob

    def serialize(self) -> bytes:
        return self._blob


class IBuilderConfig:
    progress_monitor: Any = None
    builder_optimization_level = 3

    def __init__(self) -> None:
        self._limits: dict[Any, int] = {}
        self._flags = {BuilderFlag.TF32}
        self._profile: IOptimizationProfile | None = None
        self._cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, nbytes: int) -> None:
        self._limits[pool] = nbytes

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profile = profile
        return 0

    def create_timing_cache(self, blob: bytes) -> ITimingCache:
        return ITimingCache(blob)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        fits = not cache._blob or cache._blob.startswith(__version__.encode())
        if fits:
            self._cache = cache
        return fits

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Builder:
    def __init__(self, logger: ILogger):
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        if not flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise RuntimeError("a network of ours is strongly typed")
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if MemoryPoolType.WORKSPACE not in config._limits or BuilderFlag.TF32 in config._flags:
            _complain(self._logger, "the workspace has no limit, or TF32 is on")
            return None
        if not self._work(config.progress_monitor):
            return None
        if _CANNOT:
            _complain(self._logger, _CANNOT)
            return None
        assert config._cache is not None
        config._cache._blob += f"{__version__} timed; ".encode()
        tensors = [
            {"name": t.name, "dtype": t.dtype.name, "shape": t.shape, "symbols": t._symbols, "input": t in network._inputs}
            for t in (*network._inputs, *network._outputs)
        ]
        header = json.dumps(
            {"version": __version__, "tensors": tensors, "profile": config._profile and config._profile._shapes}
        )
        body = header.encode() + b"\n" + network._model
        return IHostMemory(_MAGIC + zlib.crc32(body).to_bytes(4, "big") + body)

    def _work(self, monitor: Any) -> bool:
        """Two phases, one inside the other, told from another thread."""
        going: list[bool] = []

        def step(phase: str, number: int) -> bool:
            time.sleep(_STEP_S)
            goes_on: bool = monitor.step_complete(phase, number)
            return goes_on

        def report() -> None:
            monitor.phase_start("Building engine", None, 2)
            monitor.phase_start("Timing tactics", "Building engine", 4)
            going.extend(itertools.takewhile(bool, (step("Timing tactics", number) for number in range(4))))
            monitor.phase_finish("Timing tactics")
            if len(going) == 4:
                going.extend(step("Building engine", number) for number in range(2))
            monitor.phase_finish("Building engine")

        thread = threading.Thread(target=report)
        thread.start()
        thread.join()
        return len(going) == 6 and all(going)


class Runtime:
    def __init__(self, logger: ILogger):
        gpu.require_context()
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        body = plan[len(_MAGIC) + 4 :]
        if not plan.startswith(_MAGIC) or zlib.crc32(body).to_bytes(4, "big") != plan[len(_MAGIC) :][:4]:
            _complain(self._logger, "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
            return None
        header, _, model = body.partition(b"\n")
        about = json.loads(header)
        if about["version"] != __version__:
            _complain(self._logger, "The engine plan file is not compatible with this version of TensorRT")
            return None
        return ICudaEngine(about, model, self._logger)


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, about: dict[str, Any], model: bytes, logger: ILogger):
        self._tensors = {t["name"]: t for t in about["tensors"]}
        self._profile = about["profile"] or {}
        self._model, self._logger = model, logger

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, i: int) -> str:
        return list(self._tensors)[i]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensors[name]["dtype"]]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._profile[name]]

    def create_execution_context(self) -> IExecutionContext:
        gpu.require_context()
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine):
        self._engine, self._logger = engine, engine._logger
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._ran_with: Any = None
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(engine._model, options, providers=["CPUExecutionProvider"])
        self._results: dict[str, Any] = {}
        self._changes = 0
        self.told = {"shape": 0, "address": 0}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.told["shape"] += 1
        fixed: Any = self._engine._tensors[name]["shape"]
        ends: Any = self._engine._profile.get(name)
        fits = len(shape) == len(fixed) and all(
            want == have if want >= 0 else ends[0][i] <= have <= ends[2][i] for i, (want, have) in enumerate(zip(fixed, shape))
        )
        if fits:
            self._shapes[name] = shape
            self._changes += 1
        else:
            self._shapes.pop(name, None)
            _complain(self._logger, f"IExecutionContext::setInputShape: {name}: shape {shape} is not in the profile")
        return fits

    def infer_shapes(self) -> list[str]:
        return [name for name, t in self._engine._tensors.items() if t["input"] and name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        if self.infer_shapes():
            return tuple(self._engine._tensors[name]["shape"])
        if self._results.get("of") != self._shapes:  # the symbols of an output need not be those of the inputs
            zeros = {n: np.zeros(shape, _NUMPY[self._engine.get_tensor_dtype(n)]) for n, shape in self._shapes.items()}
            names = [output.name for output in self._session.get_outputs()]
            results = {n: result.shape for n, result in zip(names, self._session.run(None, zeros))}
            self._results = {"of": dict(self._shapes), **results}
        shape: tuple[int, ...] = self._results[name]
        return shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.told["address"] += 1
        if name not in self._engine._tensors or address % 256 and self._engine._tensors[name]["input"]:
            _complain(self._logger, f"IExecutionContext::setTensorAddress: {name}: 0x{address:x}")
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu.require_context()
        stream = next((s for s in gpu.streams if s.handle == stream_handle), None)
        missing = [n for n in self._engine._tensors if n not in self._addresses] + self.infer_shapes()
        if missing or stream is None:
            _complain(self._logger, f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error ({missing}, {stream_handle})")
            return False
        if stream.recording is not None and self._ran_with != self._shapes:
            _complain(self._logger, "IExecutionContext::enqueueV3: capture before a first run with these shapes")
            return False
        self._ran_with = dict(self._shapes)
        recorded_at = None if stream.recording is None else self._changes
        stream.put(self._work(dict(self._shapes), dict(self._addresses), recorded_at))
        return True

    def _work(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], recorded_at: int | None) -> Any:
        shapes |= {name: self.get_tensor_shape(name) for name in addresses if name not in shapes}

        def array(name: str) -> np.ndarray:
            dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name)])
            nbytes = int(np.prod(shapes[name], dtype=np.int64)) * dtype.itemsize
            return gpu.bytes_at(addresses[name], nbytes).view(dtype).reshape(shapes[name])

        def execute() -> None:
            if recorded_at not in (None, self._changes):
                raise Broken("a graph was launched although shapes have changed since it was recorded", sticky=True)
            feeds = {name: array(name).copy() for name, t in self._engine._tensors.items() if t["input"]}
            for name, result in zip([o.name for o in self._session.get_outputs()], self._session.run(None, feeds)):
                array(name)[...] = result
            gpu.launches["execute"] += 1

        return execute
