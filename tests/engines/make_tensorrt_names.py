"""Writes tensorrt_names.json: every public name of TensorRT's oldest and newest supported Python bindings.

    python tests/engines/make_tensorrt_names.py

Fetches the two bindings wheels (1.2 MB each, x86-64) with pip. They do not import without NVIDIA's libraries, which are
GB-sized; but of those they want nine functions, so that three empty libraries made with gcc are enough to look at them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEELS = {"10.3.0": "tensorrt-cu12-bindings", "11.4.0.106": "tensorrt-cu13-bindings"}
LOOK = """
import json, tensorrt_bindings as trt
public = lambda thing: sorted(name for name in dir(thing) if not name.startswith("_"))
things = {name: getattr(trt, name) for name in public(trt)}
print(json.dumps({name: public(thing) if isinstance(thing, type) else [] for name, thing in things.items()}))
"""
OUT = Path(__file__).with_name("tensorrt_names.json")


def names(version: str, package: str, folder: Path) -> dict[str, list[str]]:
    """Top-level name -> names in it, where it is a class."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    subprocess.run([*pip, f"{package}=={version}"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    so = folder / "tensorrt_bindings" / "tensorrt.so"
    table = subprocess.run(["nm", "-D", "--undefined-only", str(so)], check=True, capture_output=True, text=True).stdout
    wanted = [line.split()[-1] for line in table.splitlines()]
    wanted = [name for name in wanted if name.endswith(("_INTERNAL", "PluginRegistry", "ParserVersion", "InferPlugins"))]
    (folder / "empty.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        soname = f"lib{library}.so.{version.split('.')[0]}"
        gcc = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname), str(folder / "empty.c")]
        subprocess.run(gcc, check=True)
    env = {**os.environ, "PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}
    looked = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, env=env)
    found: dict[str, list[str]] = json.loads(looked.stdout)
    return found


def main() -> None:
    found = {}
    for version, package in WHEELS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[version] = names(version, package, Path(folder))
    blocks = []
    for version, classes in found.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(members)}" for name, members in classes.items())
        blocks.append(f" {json.dumps(version)}: {{\n{lines}\n }}")
    OUT.write_text("{\n" + ",\n".join(blocks) + "\n}\n")


if __name__ == "__main__":
    main()
