"""From trained imputation weights to a bundle: two ONNX graphs, checked against torch, `model.yaml` and the sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from torch import Tensor

from ..engines.bundle import write_sums
from ..engines.engine import open_engine
from ..plugins.sensor_imputation.features import CELL_FEATURES
from ..plugins.sensor_imputation.gaussian import LENGTH
from .imputation_net import MIXES, Denoiser, Encoder

CONTEXT = 16
_FREE = {"W": "windows", "S": "samples", "K": "tags"}


def export(encoder: Encoder, denoiser: Denoiser, folder: Path, training: dict[str, Any], version: str) -> None:
    """Writes the bundle into `folder` (made where absent); raises where onnxruntime and torch disagree."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, module, shapes, outputs in (
        ("encoder", encoder, _ENCODER, ("knots", "context", "mix")),
        ("denoiser", denoiser, _DENOISER, ("out",)),
    ):
        path = folder / f"{name}.onnx"
        _write(module.eval(), shapes, outputs, path)
        for sizes in ({"W": 2, "S": 3, "K": 5}, {"W": 1, "S": 1, "K": 1}):
            _compare(module, shapes, sizes, outputs, path)
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest(training, version), sort_keys=False, allow_unicode=True))
    write_sums(folder)


_ENCODER = {"cells": ("W", "K", LENGTH, CELL_FEATURES), "relation": ("W", "K", "K")}
_DENOISER = {
    "x": ("W", "S", "K", LENGTH),
    "t": ("W",),
    "context": ("W", "K", LENGTH, CONTEXT),
    "mix": ("W", MIXES, "K", "K"),
    "missing": ("W", "K", LENGTH),
}
Shapes = dict[str, tuple[Any, ...]]


def manifest(training: dict[str, Any], version: str) -> dict[str, Any]:
    """What `model.yaml` says."""
    points = [{"variant": "fp32", "sampler": "gaussian_exact", "steps": n, "batch": 8} for n in (2, 1, 4)]
    return {
        "name": "plant-imputer",
        "version": version,
        "kind": "sensor-imputation",
        "licence": "Apache-2.0",
        "training": training,
        "prediction": "v",
        "schedule": "cosine",
        "variants": {"fp32": {"encoder": "encoder.onnx", "denoiser": "denoiser.onnx"}},
        "operating_points": points,
        "geometry": {"window": LENGTH},
        "ranges": {"windows": [1, 8, 8], "samples": [1, 32, 256], "tags": [1, 8, 32]},
    }


def _feeds(shapes: Shapes, sizes: dict[str, int]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.rand([sizes.get(d, d) for d in shape]) for name, shape in shapes.items()}


def _write(module: torch.nn.Module, shapes: Shapes, outputs: tuple[str, ...], path: Path) -> None:
    free = {symbol: torch.export.Dim(name) for symbol, name in _FREE.items()}
    dynamic = {name: {i: free[d] for i, d in enumerate(shape) if d in free} for name, shape in shapes.items()}
    example = _feeds(shapes, {"W": 2, "S": 3, "K": 5})
    program = torch.onnx.export(
        module, tuple(example.values()), input_names=list(shapes), output_names=list(outputs),
        dynamic_shapes=dynamic, opset_version=18, dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:  # where in the source a node comes from says nothing to a gateway
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _compare(module: torch.nn.Module, shapes: Shapes, sizes: dict[str, int], outputs: tuple[str, ...], path: Path) -> None:
    feeds, engine = _feeds(shapes, sizes), open_engine(path)
    with torch.no_grad():
        wanted = module(*feeds.values())
    found = engine.run({k: v.numpy() for k, v in feeds.items()})
    for name, want in zip(outputs, wanted if isinstance(wanted, tuple) else (wanted,)):
        np.testing.assert_allclose(found[name], want.numpy(), rtol=1e-3, atol=1e-3, err_msg=f"{path.name}: {name}")
