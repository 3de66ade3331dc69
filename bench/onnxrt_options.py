"""What onnxruntime's session options do to the shipped networks: the grounds for those that `engines/onnxrt.py` sets.

    .venv/bin/python bench/onnxrt_options.py

Times are the least of several calls, one thread, the choices taking turns; memory is the resident set of a process of its
own after 400 calls of changing shapes.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from denoised.engines.bundle import SHIPPED

DEFECTS, IMPUTATION = SHIPPED / "surface-defects" / "denoiser.onnx", SHIPPED / "plant-imputer" / "denoiser.onnx"
CHOICES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "no memory pattern": {"enable_mem_pattern": False},
    "no arena": {"enable_cpu_mem_arena": False},
    "no prepacking": {"session.disable_prepacking": "1"},
}


def session(path: Path, choice: dict[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    for name, value in choice.items():
        if "." in name:
            options.add_session_config_entry(name, value)
        else:
            setattr(options, name, value)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(opened: Any, **sizes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {i.name: [d if isinstance(d, int) else sizes[d] for d in i.shape] for i in opened.get_inputs()}
    return {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}


def taking_turns(calls: list[Any], rounds: int) -> list[float]:
    least = [float("inf")] * len(calls)
    for _ in range(rounds):
        for n, call in enumerate(calls):
            began = time.perf_counter()
            call()
            least[n] = min(least[n], (time.perf_counter() - began) * 1e3)
    return least


def changing_shapes(choice: str) -> None:
    """Prints the resident set, in MB, after 400 calls."""
    opened, rng = session(IMPUTATION, CHOICES[choice]), random.Random(0)
    for _ in range(400):
        opened.run(None, feeds(opened, windows=rng.randint(1, 8), samples=rng.randint(1, 32), tags=rng.randint(1, 16)))
    print(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1_000_000)


def main() -> None:
    print(f"onnxruntime {ort.__version__}; ms, least of several; MB after 400 calls of changing shapes")
    rows = [(DEFECTS, {"batch": 1}), (DEFECTS, {"batch": 8}), (IMPUTATION, {"windows": 8, "samples": 32, "tags": 10})]
    print(f"{'':20}{'surface-defects 1':>20}{'surface-defects 8':>20}{'plant-imputer 8':>20}{'MB':>8}")
    columns = []
    for path, sizes in rows:
        opened = [session(path, choice) for choice in CHOICES.values()]
        columns.append(taking_turns([partial(s.run, None, feeds(s, **sizes)) for s in opened], 12))
    for n, choice in enumerate(CHOICES):
        ran = subprocess.run([sys.executable, __file__, choice], capture_output=True, text=True, check=True)
        print(f"{choice:20}" + "".join(f"{column[n]:20.1f}" for column in columns) + f"{ran.stdout.strip():>8}")
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "optimised.onnx"
        session(DEFECTS, {"optimized_model_filepath": str(kept)})
        plain, cached = taking_turns([lambda: session(DEFECTS, {}), lambda: session(kept, {})], 8)
    print(f"loading surface-defects: {plain:.0f} ms, from its optimised form {cached:.0f} ms")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        changing_shapes(sys.argv[1])
    else:
        main()
