"""From a float32 ONNX graph to its variants, on the graph alone: constant shapes, half precision, int8.

int8 as QuantizeLinear / DequantizeLinear pairs around chosen nodes (Jacob et al. 2018), symmetric with zero point 0, so that
onnxruntime and TensorRT take the same file. Weights keep to 7 bits: where a CPU has no VNNI or dot product, onnxruntime adds
two products of 8 bits in 16 bits, and 2 * 255 * 64 still fits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..engines.engine import open_engine

Feeds = Mapping[str, np.ndarray]
FLOAT_OPS = {"InstanceNormalization", "LayerNormalization", "Softmax", "Exp", "Tanh", "Sin", "Cos", "Pow", "ReduceSum"}
"""What half precision would spoil: sums over many elements, and functions that magnify an error."""
_WEIGHTS, _ACTIVATIONS = 64, 127
"""Largest integer of a weight and of an activation."""


def with_constant_shapes(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The same network with every Reshape told its sizes, the batch as -1, where they were computed from other tensors.

    A tensor that is read only for its shape keeps a runtime from fusing what made it. A network with more free dimensions
    than the batch, which every input must have first, stays as it is.
    """
    free = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    out = _copy(model)
    if len(free) != 1:
        return out
    reshapes = [n for n in out.graph.node if n.op_type == "Reshape"]
    twice = {name: np.concatenate([values, values]) for name, values in feeds.items()}
    sizes = [dict(seen) for seen in _observed(out, [n.output[0] for n in reshapes], [feeds, twice])]
    for node in reshapes:
        once, double = (seen[node.output[0]].shape for seen in sizes)
        fixed = [a if a == b else -1 for a, b in zip(once, double)]
        if fixed.count(-1) <= 1:
            node.input[1] = f"{node.output[0]}_sizes"
            out.graph.initializer.append(numpy_helper.from_array(np.array(fixed, np.int64), node.input[1]))
    _prune(out.graph)
    return out


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in float16; its inputs and outputs, `FLOAT_OPS` and the phases of the time stay float32."""
    out = onnx.shape_inference.infer_shapes(_lifted(model))
    graph = out.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = {i.name: i for i in graph.initializer if i.data_type == TensorProto.FLOAT}
    precise = _ahead_of(graph, ("Sin", "Cos"))
    halves: set[str] = set()
    """Tensors that are float16 under their old name."""
    cast: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []

    def wanted(name: str, half: bool) -> str:
        """`name` in the precision that is wanted, cast once where it is not."""
        if (name not in floats and name not in constants) or half == (name in halves):
            return name
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        if (name, to) not in cast:
            cast[name, to] = f"{name}_{'half' if half else 'float'}"
            if name in constants:
                values = numpy_helper.to_array(constants[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, cast[name, to]))
            else:
                nodes.append(helper.make_node("Cast", [name], [cast[name, to]], cast[name, to], to=to))
        return cast[name, to]

    for node in graph.node:
        half = node.op_type not in FLOAT_OPS and node.op_type != "Cast" and node.output[0] not in precise
        for i, name in enumerate(node.input):
            if not (node.op_type == "Resize" and i):  # its scales are float32 whatever the data
                node.input[i] = wanted(name, half)
        nodes.append(node)
        halves |= {name for name in node.output if half and name in floats}
    for result in graph.output:
        if result.name in halves:
            inner = f"{result.name}_half"
            for node in nodes:
                for names in (node.input, node.output):
                    for i, name in enumerate(names):
                        if name == result.name:
                            names[i] = inner
            nodes.append(helper.make_node("Cast", [inner], [result.name], f"{result.name}_cast", to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _prune(graph)
    onnx.checker.check_model(out, full_check=True)
    return out


def quantisable(model: onnx.ModelProto) -> list[str]:
    """Outputs of the nodes that int8 may compute: 3x3 convolutions or products with constant weights, not first nor last."""
    weights = {i.name: i for i in model.graph.initializer}
    heavy = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul") and n.input[1] in weights]
    inner = heavy[1:-1]
    return [n.output[0] for n in inner if n.op_type == "MatMul" or max(weights[n.input[1]].dims[2:]) > 1]


def in_int8(model: onnx.ModelProto, results: Sequence[str], batches: Iterable[Feeds]) -> onnx.ModelProto:
    """The same network with the nodes that make `results` in int8; scales from the largest values over `batches`."""
    out = _copy(model)
    graph = out.graph
    chosen = [n for n in graph.node if n.output[0] in set(results)]
    scales = _scales(model, sorted({n.input[0] for n in chosen} | {n.output[0] for n in chosen}), batches)
    nodes: list[onnx.NodeProto] = []
    done: dict[str, str] = {}
    for node in graph.node:
        if node not in chosen:
            nodes.append(node)
            continue
        x, result = node.input[0], node.output[0]
        if x not in done:
            done[x] = _pair(graph, nodes, x, f"{x}_int8", scales[x])
        node.input[0] = done[x]
        node.input[1] = _weight(graph, nodes, node)
        node.output[0] = f"{result}_raw"
        nodes.append(node)
        done[result] = _pair(graph, nodes, node.output[0], result, scales[result])
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _prune(graph)
    onnx.checker.check_model(out)
    return out


def _scales(model: onnx.ModelProto, names: Sequence[str], batches: Iterable[Feeds]) -> dict[str, float]:
    """Tensor -> its step of the grid: its largest magnitude over all batches is the largest integer."""
    largest = dict.fromkeys(names, 1e-6)
    for seen in _observed(model, names, batches):
        for name in names:
            largest[name] = max(largest[name], float(np.abs(seen[name]).max()))
    return {name: top / _ACTIVATIONS for name, top in largest.items()}


def _pair(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], name: str, to: str, scale: float) -> str:
    """Adds a QuantizeLinear and a DequantizeLinear behind the tensor `name`; returns what the second makes."""
    graph.initializer.append(numpy_helper.from_array(np.float32(scale), f"{to}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.int8(0), f"{to}_zero"))
    grid = [f"{to}_scale", f"{to}_zero"]
    nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [f"{to}_q"], f"{to}_quantize"))
    nodes.append(helper.make_node("DequantizeLinear", [f"{to}_q", *grid], [to], f"{to}_dequantize"))
    return to


def _weight(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], node: onnx.NodeProto) -> str:
    """Replaces the node's float weights by int8 ones with a scale per output channel."""
    name = node.input[1]
    axis = 0 if node.op_type == "Conv" else 1
    weight = next(numpy_helper.to_array(i) for i in graph.initializer if i.name == name)
    rest = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(rest, keepdims=True), 1e-9) / _WEIGHTS
    whole = np.rint(weight / scale).astype(np.int8)
    made = f"{node.output[0]}_weight"
    for suffix, values in (("q", whole), ("scale", scale.reshape(-1)), ("zero", np.zeros(scale.size, np.int8))):
        graph.initializer.append(numpy_helper.from_array(values, f"{made}_{suffix}"))
    grid = [f"{made}_q", f"{made}_scale", f"{made}_zero"]
    nodes.append(helper.make_node("DequantizeLinear", grid, [made], f"{made}_dequantize", axis=axis))
    return made


def _observed(model: onnx.ModelProto, names: Sequence[str], batches: Iterable[Feeds]) -> Iterable[Mapping[str, np.ndarray]]:
    """What the tensors `names` hold, batch by batch; the arrays last until the next."""
    shown = _copy(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shown.onnx")
        onnx.save(shown, path)
        engine = open_engine(path)
        for feeds in batches:
            yield engine.run(feeds)
        engine.close()


def _ahead_of(graph: onnx.GraphProto, ops: tuple[str, ...]) -> set[str]:
    """Every tensor that nodes of these types are computed from."""
    makers = {name: n for n in graph.node for name in n.output}
    found: set[str] = set()
    waiting = [name for n in graph.node if n.op_type in ops for name in n.input]
    while waiting:
        name = waiting.pop()
        if name in makers and name not in found:
            found.add(name)
            waiting += makers[name].input
    return found


def _lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its Constant nodes as initializers."""
    out = _copy(model)
    for node in [n for n in out.graph.node if n.op_type == "Constant"]:
        value = next(a.t for a in node.attribute if a.name == "value")
        out.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), node.output[0]))
        out.graph.node.remove(node)
    return out


def _prune(graph: onnx.GraphProto) -> None:
    """Takes away nodes and initializers that nobody reads."""
    while True:
        read = {name for n in graph.node for name in n.input} | {o.name for o in graph.output}
        idle = [n for n in graph.node if not read & set(n.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for initializer in [i for i in graph.initializer if i.name not in read]:
        graph.initializer.remove(initializer)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    return out
