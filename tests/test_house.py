"""The walls of the house: which floor may import which, and which library belongs to which file alone.

Read from the source by ast, so imports inside functions and under TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    p for top in ("config", "engines", "plugins", "daemon", "demo", "training") for p in (HOUSE / top).rglob("*.py")
)

# Floor -> the floors it may import from; "" is the root module, which holds the version and nothing else.
FLOORS = {
    "config": {"config"},
    "engines": {"config", "engines"},
    "plugins": {"", "config", "engines", "plugins"},
    "daemon/core": {"config", "daemon/core"},
    "daemon/cli": {"", "config", "engines", "plugins", "daemon/core", "daemon", "daemon/cli", "demo"},
    "daemon": {"", "config", "engines", "plugins", "daemon/core", "daemon"},
    "demo": {"", "config", "engines", "plugins", "daemon/core", "daemon", "daemon/cli", "demo"},
    "training": {"", "config", "engines", "plugins", "demo", "training"},
}
# Library -> the files or folders that alone import it.
KEEPERS = {
    "paho": ["daemon/bus.py", "demo/watcher.py"],
    "sqlite3": ["daemon/spool.py"],
    "onnxruntime": ["engines/onnxrt.py"],
    "tensorrt": ["engines/trt_library.py"],
    "tensorrt_rtx": ["engines/trt_library.py"],
    "pycuda": ["engines/trt_device.py"],
    "systemd": ["daemon/notify.py"],
    "torch": ["training/"],
    "amqtt": ["demo/"],
    "google": ["daemon/sparkplug_payload.py"],
}
# Time, I/O and arrays, which the decisions of daemon/core are handed and never fetch.
NOT_IN_CORE = {"time", "threading", "os", "socket", "subprocess", "asyncio", "random", "paho", "sqlite3", "numpy", "cv2"}
ARRAYS = {"numpy", "cv2", "torch", "scipy", "cupy", "pycuda", "onnxruntime"}


def path_of(source: Path) -> str:
    return source.relative_to(HOUSE).as_posix()


def floor_of(path: str) -> str:
    """`daemon/core/job.py` -> `daemon/core`."""
    return max((f for f in FLOORS if path.startswith(f + "/")), key=len, default="")


def imports(path: str, code: str) -> list[str]:
    """Dotted names imported, absolute: `from ..config import typed` in engines/bundle.py is `denoised.config.typed`."""
    package = ["denoised", *Path(path).parent.parts]
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            found += [".".join([*base, alias.name]) for alias in node.names]
    return found


def clock_reads(code: str) -> list[str]:
    """Calls such as `datetime.now()`; `now` as an argument is how it should be."""
    calls = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return [
        ast.unparse(f)
        for f in calls
        if isinstance(f, ast.Attribute) and f.attr in ("now", "utcnow", "today") and "date" in ast.unparse(f.value)
    ]


def broken_rules(path: str, code: str) -> list[str]:
    """What this file does that its place in the house forbids, in words."""
    floor, broken = floor_of(path), []
    for name in imports(path, code):
        top, *rest = name.split(".")
        if top == "denoised":
            target = floor_of("/".join(rest) + "/")
            if target not in FLOORS[floor]:
                broken.append(
                    f"{path} imports {name}: {floor}/ stands on {', '.join(sorted(filter(None, FLOORS[floor])))} alone"
                )
        if top in KEEPERS and not any(path.startswith(keeper) for keeper in KEEPERS[top]):
            broken.append(f"{path} imports {top}: that belongs to {', '.join(KEEPERS[top])}")
        if floor == "daemon/core" and top in NOT_IN_CORE:
            broken.append(f"{path} imports {top}: daemon/core has no clock and no I/O, hand it in as an argument")
        if path == "engines/samplers.py" and top in ARRAYS:
            broken.append(f"{path} imports {top}: a sampler runs on whatever array it is given")
    if floor == "daemon/core":
        broken += [f"{path} calls {call}(): daemon/core is handed the time" for call in clock_reads(code)]
    return broken


@pytest.mark.parametrize("source", SOURCES, ids=path_of)
def test_each_file_keeps_to_its_floor(source: Path) -> None:
    assert broken_rules(path_of(source), source.read_text()) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("config/tree.py", "from ..engines.noise import gaussian"),
        ("config/tree.py", "from .. import __version__"),
        ("engines/bundle.py", "from denoised.plugins import kind"),
        ("plugins/defect_synthesis/kind.py", "from ...daemon.core import job"),
        ("daemon/core/job.py", "from ..spool import Spool"),
        ("daemon/core/job.py", "def f():\n    import time"),
        ("daemon/core/job.py", "import datetime\nx = datetime.datetime.now(tz=None)"),
        ("daemon/supervisor.py", "import paho.mqtt.client as mqtt"),
        ("daemon/desk.py", "from ..demo import plant"),
        ("engines/samplers.py", "import numpy as np"),
        ("plugins/kind.py", "import torch"),
    ],
)
def test_a_broken_wall_is_seen(path: str, code: str) -> None:
    assert len(broken_rules(path, code)) == 1


def test_the_supervisors_process_loads_no_heavy_library() -> None:
    """A crash of onnxruntime or OpenCV is the worker's, and numpy would triple the supervisor's memory."""
    # The processes that do load them, and what the worker or commands alone import.
    own = {"worker", "networks", "checkpoints", "cameras", "measure"}
    modules = [f"denoised.daemon.{p.stem}" for p in (HOUSE / "daemon").glob("*.py") if p.stem not in own | {"__init__"}]
    code = f"import sys, {', '.join(modules)}; print([m for m in {sorted(ARRAYS)} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.strip() == "[]"
