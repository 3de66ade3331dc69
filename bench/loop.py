"""What a denoising loop costs beside its network, ours next to diffusers' schedulers, and how far the networks are from the
machine's own peak: `make bench-loop`. One run, one thread, the same weights everywhere, all ways taking turns.

    OMP_NUM_THREADS=1 python bench/loop.py [--rounds 20]

A step's time beside the network is the whole of a trajectory less the time inside the network's call, over its steps. Ours
counts everything from the start noise to the result; of diffusers `set_timesteps` is left out. Trust the minimum on a
machine that does other things too; the median stands beside it.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import diffusers
import numpy as np
import onnx
import torch
from denoised.config import typed
from denoised.demo.surface import frame
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.engines.engine import open_engine
from denoised.engines.onnxrt import OnnxRuntimeEngine
from denoised.engines.schedules import schedule
from denoised.plugins.defect_synthesis.kind import KIND as DEFECTS
from denoised.plugins.kind import Problem, Site, Task
from denoised.plugins.play import play, solve, walk
from denoised.plugins.sensor_imputation.kind import KIND as IMPUTATION
from onnx import TensorProto, helper, numpy_helper, shape_inference

STEPS = 20
NETS = {"4x32x32": (16, 32, 8), "4x64x64": (16, 64, 4)}
"""x -> channels, side and convolutions of a network on it."""
SAMPLERS = {"ddim": "DDIMScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler", "unipc": "UniPCMultistepScheduler"}
Timing = tuple[float, float]
"""Seconds of a trajectory: as a whole, and inside the network."""


class Timed:
    """Whatever it wraps, with the time that calls of one method take summed up."""

    def __init__(self, inner: Any, method: str):
        self._inner, self._call, self.spent = inner, getattr(inner, method), 0.0
        setattr(self, method, self._timed)

    def _timed(self, *args: Any) -> Any:
        began = time.perf_counter()
        out = self._call(*args)
        self.spent += time.perf_counter() - began
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def weights_of(channels: int, depth: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    width = [4, *[channels] * (depth - 1), 4]
    return [
        (rng.standard_normal((out, into, 3, 3)) / np.sqrt(9 * into)).astype(np.float32) for into, out in zip(width, width[1:])
    ]


def convolutions(weights: list[np.ndarray], side: int, path: Path) -> Path:
    """x (batch, 4, side, side), t (batch,) -> out: convolutions with ReLU between, t added."""
    nodes, name = [], "x"
    for n in range(len(weights)):
        last = n == len(weights) - 1
        nodes.append(helper.make_node("Conv", [name, f"w{n}"], [f"c{n}"], pads=[1, 1, 1, 1]))
        name = f"c{n}" if last else f"r{n}"
        if not last:
            nodes.append(helper.make_node("Relu", [f"c{n}"], [name]))
    nodes += [helper.make_node("Unsqueeze", ["t", "axes"], ["tt"]), helper.make_node("Add", [name, "tt"], ["out"])]
    shape = ["batch", 4, side, side]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "out")]
    values.insert(1, helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch"]))
    constants = [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)]
    constants.append(numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"))
    graph = helper.make_graph(nodes, "convolutions", values[:2], values[2:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


class TorchNet:
    """The same network in torch."""

    def __init__(self, weights: list[np.ndarray]):
        self._weights = [torch.from_numpy(w) for w in weights]

    def run(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        for n, weight in enumerate(self._weights):
            x = torch.conv2d(x, weight, padding=1)
            if n < len(self._weights) - 1:
                x = torch.relu(x)
        return x + t[:, None, None, None]


def ours(engine: OnnxRuntimeEngine, sampler: str, x: np.ndarray) -> Timing:
    timed: Any = engine._session
    timed.spent = 0.0
    began = time.perf_counter()
    solve(walk(Problem(x, {}, (0,)), engine, schedule("linear", STEPS), sampler, "v"))
    return time.perf_counter() - began, timed.spent


def theirs(scheduler: Any, x: np.ndarray, call: Callable[[Any, Any], Any], timed: Timed) -> Timing:
    """diffusers' loop as its pipelines write it."""
    scheduler.set_timesteps(STEPS)
    timed.spent = 0.0
    began = time.perf_counter()
    with torch.no_grad():
        state = torch.from_numpy(x) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            answer = call(scheduler.scale_model_input(state, t), t)
            state = scheduler.step(answer, t, state, return_dict=False)[0]
    return time.perf_counter() - began, timed.spent


def overhead(rounds: int, folder: Path) -> None:
    print(f"Beside the network, us per step, minimum (median) of {3 * rounds} trajectories of {STEPS} steps, batch 1")
    print(f"{'x':8} {'sampler':9} {'network':>9} {'ours':>13} {'of net':>7}", end="")
    print(f" {'diffusers + onnxruntime':>24} {'diffusers + torch':>18} {'less by':>8}")
    for name, (channels, side, depth) in NETS.items():
        weights = weights_of(channels, depth)
        path = convolutions(weights, side, folder / f"{side}.onnx")
        engine, peer, net = OnnxRuntimeEngine(path), OnnxRuntimeEngine(path), Timed(TorchNet(weights), "run")
        engine._session = Timed(engine._session, "run_with_iobinding")
        session = Timed(peer._session, "run")
        x = np.random.default_rng(1).standard_normal((1, 4, side, side)).astype(np.float32)

        def with_onnxruntime(x: torch.Tensor, t: torch.Tensor, session: Timed = session) -> torch.Tensor:
            feeds = {"x": x.numpy(), "t": np.full(len(x), float(t), np.float32)}
            return torch.from_numpy(session.run(None, feeds)[0])

        def with_torch(x: torch.Tensor, t: torch.Tensor, net: Timed = net) -> Any:
            return net.run(x, t.expand(len(x)).float())

        for sampler, peer_name in SAMPLERS.items():
            scheduler = getattr(diffusers, peer_name)(prediction_type="v_prediction")
            took: dict[str, list[Timing]] = {"ours": [], "onnxruntime": [], "torch": []}
            ways: dict[str, Callable[[], Timing]] = {
                "ours": partial(ours, engine, sampler, x),
                "onnxruntime": partial(theirs, scheduler, x, with_onnxruntime, session),
                "torch": partial(theirs, scheduler, x, with_torch, net),
            }
            for _ in range(rounds):
                for way, run in ways.items():
                    run()  # so that nobody pays for what another left in the caches
                    took[way] += [run() for _ in range(3)]
            beside = {way: [(whole - inside) / STEPS * 1e6 for whole, inside in took[way]] for way in took}
            network = min(inside for _, inside in took["ours"]) / STEPS * 1e6
            least = {way: min(beside[way]) for way in beside}
            cells = [f"{least[way]:.1f} ({median(beside[way]):.1f})" for way in beside]
            less = min(least["onnxruntime"], least["torch"]) / least["ours"]
            print(f"{name:8} {sampler:9} {network:9.0f} {cells[0]:>13} {least['ours'] / network:6.1%}", end="")
            print(f" {cells[1]:>24} {cells[2]:>18} {less:7.1f}x", flush=True)


def flops(path: Path, sizes: Mapping[str, int]) -> float:
    """Multiplications and additions of one call, in convolutions and matrix products."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param in sizes:
                d.dim_value = sizes[d.dim_param]
    model = shape_inference.infer_shapes(model, data_prop=True)
    shapes = {i.name: list(i.dims) for i in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total = 0.0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += 2 * np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += 2 * np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return total


def least(what: Callable[[], object], runs: int) -> float:
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        what()
        took.append(time.perf_counter() - began)
    return min(took)


def peak() -> float:
    """Floating point operations a second in a large float32 matrix product."""
    a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    return 2 * 1024**3 / least(lambda: a @ a, 10)


def shipped(rounds: int, folder: Path) -> None:
    """Whole jobs of the shipped models, and what their networks make of the machine."""
    rng = np.random.default_rng(0)
    print("\nShipped models, one thread, whole jobs at their first operating point")
    values: list[list[float | None]] = np.cumsum(rng.standard_normal((192, 8)), 0).tolist()
    for at in range(10, 190, 20):
        values[at][at % 8] = None
    _, png = cv2.imencode(".png", frame(1, 0))
    jobs: list[tuple[Any, str, dict[str, Any], str, dict[str, int]]] = [
        (DEFECTS, "surface-defects",
         {"image": {"data": base64.b64encode(png.tobytes()).decode()}, "defect": "blowhole", "count": 16, "gate": "off"},
         "images/s", {"batch": 8}),
        (IMPUTATION, "plant-imputer", {"tags": [f"s{k}" for k in range(8)], "values": values},
         "windows/s", {"windows": 7, "samples": 32, "tags": 8}),
    ]  # fmt: skip
    top = peak()
    print(f"large float32 matrix product: {top / 1e9:.1f} Gflop/s, the machine's own peak")
    for kind, name, params, unit, sizes in jobs:
        bundle = read_bundle(SHIPPED / name)
        point = bundle.manifest.operating_points[0]
        engines: dict[str, Any] = {n: open_engine(bundle.file(f)) for n, f in bundle.manifest.variants[point.variant].items()}
        task = Task("bench", 1, folder, bundle, point, engines.__getitem__, Site(models={kind.name: (bundle,)}))
        count = kind.check(typed.read(params, kind.params), task.site)
        took = least(lambda kind=kind, params=params, task=task: play(kind, params, task), max(rounds // 10, 2))  # type: ignore[misc]
        engine = engines["denoiser"]
        feeds = {n: np.ones([sizes.get(str(d), d) for d in s.shape], np.float32) for n, s in engine.inputs.items()}
        call = least(lambda engine=engine, feeds=feeds: engine.run(feeds), max(rounds // 2, 5))  # type: ignore[misc]
        rate = flops(bundle.file(bundle.manifest.variants[point.variant]["denoiser"]), sizes) / call
        print(f"{name:16} {count / took:7.1f} {unit:9} ({point.sampler}, {point.steps} steps); ", end="")
        print(f"network {call * 1e3:.1f} ms at {rate / 1e9:.1f} Gflop/s, {rate / top:.0%} of the peak", flush=True)


def main() -> int:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="turns of three trajectories (default 20)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"diffusers {diffusers.__version__}, torch {torch.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        overhead(args.rounds, Path(scratch))
        shipped(args.rounds, Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
