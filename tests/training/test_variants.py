from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import yaml
from denoised.engines.bundle import SHIPPED, read_bundle, write_sums
from denoised.engines.engine import open_engine
from denoised.training import variants
from denoised.training.variants_graph import in_half, in_int8, quantisable, with_constant_shapes
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="module")
def small():
    """x (batch, 2, 8, 8), t (batch,): three 3x3 convolutions with norms between, as a defect network has them."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((4, 2, 3, 3)), "b1": rng.standard_normal(4), "w2": rng.standard_normal((4, 4, 3, 3)) / 6,
        "b2": rng.standard_normal(4), "w3": rng.standard_normal((2, 4, 3, 3)) / 6, "scale": np.ones(2), "bias": np.zeros(2),
        "fast": np.array([300.0]),
    }  # fmt: skip
    ints = {"groups": [0, 2, -1], "last": [1, 2, 3]}
    nodes = [
        helper.make_node("Mul", ["t", "fast"], ["phase"]),
        helper.make_node("Sin", ["phase"], ["wave"]),
        helper.make_node("Unsqueeze", ["wave", "last"], ["told"]),
        helper.make_node("Conv", ["x", "w1", "b1"], ["h1"], pads=[1, 1, 1, 1]),
        helper.make_node("Shape", ["h1"], ["size"]),
        helper.make_node("Reshape", ["h1", "groups"], ["grouped"]),
        helper.make_node("InstanceNormalization", ["grouped", "scale", "bias"], ["normal"]),
        helper.make_node("Reshape", ["normal", "size"], ["back"]),
        helper.make_node("Add", ["back", "told"], ["h2"]),
        helper.make_node("Conv", ["h2", "w2", "b2"], ["h3"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h3"], ["h4"]),
        helper.make_node("Conv", ["h4", "w3"], ["out"], pads=[1, 1, 1, 1]),
    ]
    floats = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    whole = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in ints.items()]
    x, out = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2, 8, 8]) for n in ("x", "out"))
    t = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "small", [x, t], [out], floats + whole)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(batch, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((batch, 2, 8, 8), dtype=np.float32), "t": rng.random(batch, dtype=np.float32)
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    def run(model, values):
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        engine = open_engine(path)
        out = engine.run(values)["out"].copy()
        engine.close()
        return out

    return run


def difference(a, b):
    return float(np.sqrt(((a - b) ** 2).mean() / (b**2).mean()))


def test_constant_shapes_compute_the_same_for_any_batch_without_asking_for_a_shape(small, run):
    made = with_constant_shapes(small, feeds(2))
    assert "Shape" in {n.op_type for n in small.graph.node}
    assert "Shape" not in {n.op_type for n in made.graph.node}
    for batch in (1, 2, 5):
        np.testing.assert_array_equal(run(made, feeds(batch)), run(small, feeds(batch)))


def test_half_precision_keeps_float32_outside_and_where_it_matters(small, run):
    made = in_half(with_constant_shapes(small, feeds(2)))
    assert {v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)} == {TensorProto.FLOAT}
    types = {i.name: i.data_type for i in made.graph.initializer}
    users = {n.op_type: n for n in made.graph.node}
    assert types[users["Conv"].input[1]] == TensorProto.FLOAT16
    assert types[users["InstanceNormalization"].input[1]] == TensorProto.FLOAT
    assert types[users["Mul"].input[1]] == TensorProto.FLOAT  # a phase of 300 rad in float16 is off by 0.1
    assert 0 < difference(run(made, feeds(4)), run(small, feeds(4))) < 2e-3


def test_int8_is_symmetric_keeps_weights_to_seven_bits_and_leaves_first_and_last_alone(small, run):
    plain = with_constant_shapes(small, feeds(2))
    assert quantisable(plain) == ["h3"]
    made = in_int8(plain, ["h3"], [feeds(4, seed) for seed in range(8)])
    values = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    pairs = [n for n in made.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 5  # around the convolution, and its weights
    assert all(not values[n.input[2]].any() and values[n.input[2]].dtype == np.int8 for n in pairs)
    (weights,) = (v for v in values.values() if v.dtype == np.int8 and v.ndim == 4)
    assert np.abs(weights).max() == 64
    assert {"w1", "w3"} <= values.keys() and "w2" not in values
    assert 1e-4 < difference(run(made, feeds(4, 99)), run(small, feeds(4, 99))) < 0.05


QUALITY = {"fp32": {"cpu_ms_per_window": 10.0}, "int8": {"cpu_ms_per_window": 7.0, "rms_grey_to_fp32": 1.0}}


@pytest.mark.parametrize(
    ("change", "why"),
    [({}, None), ({"rms_grey_to_fp32": 2.1}, "more than 2"), ({"cpu_ms_per_window": 11.0}, "1.10 times the CPU time")],
)
def test_a_variant_is_shipped_if_it_is_near_enough_and_faster(change, why):
    rows = [{"variant": v, "quality": {**q, **(change if v == "int8" else {})}} for v, q in QUALITY.items()]
    found = variants.verdict("int8", rows, "rms_grey_to_fp32", 2.0)
    assert (found is None) if why is None else (found is not None and why in found)


def copy(name, folder, kept=("fp32",)):
    """A copy of a shipped bundle as it was before it had variants, with one quick operating point for each that is kept."""
    shutil.copytree(SHIPPED / name, folder)
    plain = yaml.safe_load((folder / "model.yaml").read_text())
    plain["operating_points"] = [next(p for p in plain["operating_points"] if p["variant"] == v) for v in kept]
    for point in plain["operating_points"]:
        point["steps"] = 2
    plain["variants"] = {v: plain["variants"][v] for v in kept}
    (folder / "model.yaml").write_text(yaml.safe_dump(plain))
    write_sums(folder)
    return read_bundle(folder)


def test_the_command_ships_variants_beside_an_unchanged_float32(tmp_path, monkeypatch, capsys):
    before = copy("surface-defects", tmp_path / "b")
    monkeypatch.setitem(variants.TRIALS, "defect-synthesis", lambda bundle, fp32: variants.Defects(bundle, fp32, each=1))
    assert variants.main([str(tmp_path / "b")]) == 0
    after = read_bundle(tmp_path / "b")
    after.verify()
    assert list(after.manifest.variants) == ["fp32", "int8", "fp16"]
    assert [p.variant for p in after.manifest.operating_points] == ["fp32", "int8", "fp16"]
    assert after.sums["denoiser.onnx"] == before.sums["denoiser.onnx"]
    assert all(p.quality.get("rms_grey_to_fp32", 0) <= 2 for p in after.manifest.operating_points)
    assert after.file("denoiser-int8.onnx").stat().st_size < 2e6


def test_a_distilled_variant_stays_as_it_is_and_gets_an_int8_file_of_its_own(tmp_path, monkeypatch):
    before = copy("surface-defects", tmp_path / "b", ("fp32", "distilled"))
    monkeypatch.setitem(variants.TRIALS, "defect-synthesis", lambda bundle, fp32: variants.Defects(bundle, fp32, each=1))
    assert variants.main([str(tmp_path / "b")]) == 0
    after = read_bundle(tmp_path / "b")
    after.verify()
    assert set(after.manifest.variants) == {"fp32", "int8", "fp16", "distilled", "distilled-int8"}
    assert after.sums["denoiser-distilled.onnx"] == before.sums["denoiser-distilled.onnx"]
    quality = {p.variant: p.quality for p in after.manifest.operating_points}
    assert "rms_grey_to_fp32" not in quality["distilled"] and 0 < quality["distilled-int8"]["rms_grey_to_fp32"] <= 2


def test_the_command_takes_away_a_variant_that_fails_and_says_why(tmp_path, monkeypatch, capsys):
    copy("plant-imputer", tmp_path / "b")
    monkeypatch.setitem(variants.TRIALS, "sensor-imputation", lambda bundle, fp32: variants.Plants(bundle, fp32, each=2))
    monkeypatch.setattr(variants.Plants, "limit", -1.0)
    assert variants.main([str(tmp_path / "b")]) == 0
    after = read_bundle(tmp_path / "b")
    after.verify()
    assert list(after.manifest.variants) == ["fp32"]
    assert "more than -1" in after.manifest.training["variants"]["not_shipped"]["int8"]
    assert "int8 is not shipped: crps_change" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "b").glob("*.onnx")) == ["denoiser.onnx", "encoder.onnx"]


def test_classes_that_nobody_can_draw_need_the_windows_of_the_training(tmp_path, capsys):
    copy("surface-defects", tmp_path / "b")
    text = (tmp_path / "b" / "model.yaml").read_text()
    (tmp_path / "b" / "model.yaml").write_text(text.replace("- crack", "- dent"))
    write_sums(tmp_path / "b")
    assert variants.main([str(tmp_path / "b")]) == 1
    assert "pool.npz: not there" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [4])
def test_the_shipped_variants_stay_within_the_distance_that_their_manifest_states(steps):
    bundle = read_bundle(SHIPPED / "surface-defects")
    points = [p for p in bundle.manifest.operating_points if p.steps == steps]
    networks = {
        p.variant: {name: variants._Watched(bundle.file(file)) for name, file in bundle.manifest.variants[p.variant].items()}
        for p in points
    }
    trial = variants.Defects(bundle, networks["fp32"])
    answers = {p.variant: trial.answers(networks[p.variant], p, variants.HELD_OUT) for p in points}
    assert trial.count >= 16 and set(answers) == {"fp32", "int8", "fp16", "distilled", "distilled-int8"}
    for p in points:
        source = "distilled" if p.variant.startswith("distilled") else "fp32"
        found = trial.distance(answers[p.variant], answers[source])
        stated = p.quality.get("rms_grey_to_fp32", 0.0)
        assert found <= 1.25 * stated <= 1.25 * trial.limit
