"""Read by every Python process of the daemon under test: the machine has the GPU of `tests/engines/fake_nvidia`.

Only what asks the driver itself is replaced; TensorRT and pycuda are found on the path, as the real ones would be.
"""

import importlib
from typing import Any

from denoised.engines import trt_library
from denoised.engines.trt_library import Gpu


def _probe(timeout_s: float = 20.0) -> Gpu:
    return Gpu("Fake Orin", "8.7", 8, "12.6", False, 1 << 32, 1 << 32)


def _cuda_driver() -> Any:
    return importlib.import_module("pycuda.driver").Driver()


trt_library.probe = _probe
trt_library.cuda_driver = _cuda_driver
