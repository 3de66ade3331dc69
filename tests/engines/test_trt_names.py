"""No name of TensorRT is used that its oldest or its newest supported version lacks; the fake has none of its own either.

A variable that holds an object of TensorRT is called the same wherever it occurs in a file: that is how its type is known.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENGINES = HERE.parent.parent / "engines"
VERSIONS = json.loads((HERE / "tensorrt_names.json").read_text())

OBJECTS = {
    "trt_build.py": {
        "kinds": "NetworkDefinitionCreationFlag",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
        "error": "ParserError",
        "t": "DataType",
    },
    "trt_library.py": {},
    "trt.py": {"self._runtime": "Runtime", "self._engine": "ICudaEngine", "self._context": "IExecutionContext"},
}
RTX_ALONE = {
    "ComputeCapability",
    "ComputeCapability.CURRENT",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}
"""Used behind a `hasattr`."""


def used_names(file: str, code: str, objects: dict[str, str]) -> set[str]:
    """`Builder.create_network` for `builder.create_network`, `DataType.FLOAT` for `trt.DataType.FLOAT`."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            owner, _, name = ast.unparse(node).rpartition(".")
            if owner in objects:
                found.add(f"{objects[owner]}.{name}")
            elif owner == "trt":
                found.add(name)
            elif owner.startswith("trt.") and owner.count(".") == 1:
                found.add(f"{owner[4:]}.{name}")
        if isinstance(node, ast.ClassDef):  # what TensorRT calls in classes of ours
            for base in (ast.unparse(base) for base in node.bases):
                if base.startswith("trt."):
                    methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                    found |= {f"{base[4:]}.{method}" for method in methods if not method.startswith("_")}
    return {name for name in found if "__" not in name}


def missing(names: set[str], version: str) -> set[str]:
    def there(name: str) -> bool:
        owner, _, member = name.partition(".")
        return owner in VERSIONS[version] and (not member or member in VERSIONS[version][owner])

    return {name for name in names - RTX_ALONE if not there(name)}


def all_used() -> set[str]:
    return {name for file, objects in OBJECTS.items() for name in used_names(file, (ENGINES / file).read_text(), objects)}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_that_we_use_is_there(version: str) -> None:
    assert missing(all_used(), version) == set()


def test_the_versions_looked_at_are_the_oldest_and_the_newest_that_we_take() -> None:
    from denoised.engines.trt_library import BEYOND, OLDEST

    first, last = ([int(part) for part in version.split(".")] for version in VERSIONS)
    assert (*first[:2],) == OLDEST and last[0] == BEYOND[0] - 1


def test_nothing_of_tensorrt_is_used_in_files_that_are_not_looked_at() -> None:
    for file in ENGINES.glob("*.py"):
        if file.name not in OBJECTS:
            assert used_names(file.name, file.read_text(), {}) == set(), file


def test_the_names_are_seen_at_all() -> None:
    used = all_used()
    assert {"Builder.build_serialized_network", "IExecutionContext.execute_async_v3", "DataType.HALF"} <= used
    assert {"ILogger.log", "IProgressMonitor.step_complete", "Runtime", "MemoryPoolType.WORKSPACE"} <= used
    assert len(used) > 50


@pytest.mark.parametrize("gone", ["builder.platform_has_fast_fp16", "config.int8_calibrator", "trt.BuilderFlag.FP16"])
def test_a_name_that_11_dropped_is_seen(gone: str) -> None:
    names = used_names("trt_build.py", f"x = {gone}", OBJECTS["trt_build.py"])
    assert len(missing(names, "11.4.0.106")) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_has_no_name_that_tensorrt_lacks(version: str, fake_gpu) -> None:
    fake = importlib.import_module("tensorrt")
    classes = {name: thing for name, thing in vars(fake).items() if inspect.isclass(thing) and thing.__module__ == "tensorrt"}
    names = {f"{name}.{m}" for name, thing in classes.items() for m in vars(thing) if not m.startswith("_")}
    # Enumerations of Python have no `name` in their class; an instance's counters are for the tests.
    assert missing(names | set(classes), version) == set()
