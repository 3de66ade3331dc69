from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import yaml
from denoised.engines.bundle import read_bundle, write_sums
from denoised.engines.engine import TensorSpec
from denoised.engines.host import over_run
from denoised.engines.standin import StandInEngine
from denoised.plugins.defect_synthesis.masks import Shape

SHAPES = {
    "blowhole": Shape("blob", 0.0, (60.0, 120.0, 200.0), (1.1, 1.5, 3.0), 0.02, 300.0),
    "crack": Shape("walk", 1.0, (150.0, 300.0, 500.0), (6.0, 11.0, 16.0), 0.15, 300.0),
    "uneven": Shape("area", 0.9, (6000.0, 16000.0, 26000.0), (1.2, 2.0, 4.0), 0.02, 300.0),
}


@pytest.fixture
def defect_bundle(tmp_path_factory):
    """A bundle of three classes; its network is not a network, tests hand in an engine of their own."""
    folder = tmp_path_factory.mktemp("defect-bundle")
    manifest = {
        "name": "toy-defects", "version": "1.0.0", "kind": "defect-synthesis", "licence": "Apache-2.0", "training": {},
        "prediction": "v", "schedule": "cosine", "variants": {"fp32": {"denoiser": "denoiser.onnx"}},
        "operating_points": [{"variant": "fp32", "steps": 4, "batch": 3}], "classes": list(SHAPES),
        "geometry": {"side": 64, "shapes": "shapes.json"},
    }  # fmt: skip
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "shapes.json").write_text(json.dumps({k: {**asdict(s), "strength": [0.2, 0.4, 0.6]} for k, s in SHAPES.items()}))
    (folder / "denoiser.onnx").write_bytes(b"none")
    write_sums(folder)
    return read_bundle(folder)


class DarkEngine:
    """The exact denoiser of defects that are independent Gaussian pixels, 1.2 gains darker than the good surface."""

    provider = "numpy"

    def __init__(self):
        self._gaussian = StandInEngine((1, 64, 64), mean=-1.2, std=0.3)
        image, row = ("batch", 1, 64, 64), ("batch",)
        own = {"clean": image, "mask": image, "label": ("batch", "classes"), "severity": row, "scale": row}
        self.inputs = {**self._gaussian.inputs, **{name: TensorSpec(name, "float32", shape) for name, shape in own.items()}}
        self.outputs = self._gaussian.outputs
        self.batches, self.severities = [], set()

    def run(self, feeds):
        self.batches.append(len(feeds["x"]))
        self.severities |= set(feeds["severity"].tolist())
        return {"out": self._gaussian.run({"x": feeds["x"], "t": feeds["t"]})["out"] * feeds["mask"]}

    def bind(self, x, conditions):
        return over_run(self, x, conditions)

    def close(self):
        pass


@pytest.fixture
def dark_engine():
    return DarkEngine()
