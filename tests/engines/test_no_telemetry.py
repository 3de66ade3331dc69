"""Nothing leaves the gateway but what the plant configured, and nothing is written outside its folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_loading_onnxruntime_leaves_no_device_id_and_no_event_store(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from denoised.engines.engine import EngineLoadError
from denoised.engines.onnxrt import OnnxRuntimeEngine
try:
    OnnxRuntimeEngine(Path("no-such.onnx"))
except EngineLoadError:
    print("loaded")
"""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**keep, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "loaded", ran.stderr
    assert list(tmp_path.rglob("*")) == []
