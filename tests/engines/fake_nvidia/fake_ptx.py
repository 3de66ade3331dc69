"""Runs the few PTX instructions that our kernels are made of, over all threads at once, in the arithmetic of float32."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from fake_gpu import Broken, gpu


class Kernel:
    """One entry of a PTX text."""

    def __init__(self, text: str):
        entry = re.search(r"\.visible \.entry (\w+)\((.*?)\)\s*\{(.*)\}", text, re.DOTALL)
        if not entry or ".version" not in text or ".target sm_" not in text:
            raise Broken("a PTX JIT compilation failed")
        self.name, parameters, body = entry.groups()
        pairs = [re.fullmatch(r"\s*\.param \.(\w+) (\w+)", p) for p in parameters.split(",")]
        self.types = [p[1] for p in pairs if p]
        self._names = [p[2] for p in pairs if p]
        self._lines = [line.strip() for line in body.split(";") if line.strip() and not line.strip().startswith(".reg")]

    def run(self, threads: int, per_block: int, args: Sequence[Any]) -> None:
        """`threads` in blocks of `per_block`."""
        index = np.arange(threads, dtype=np.uint64)
        r: dict[str, Any] = {"%ctaid.x": index // per_block, "%ntid.x": np.uint64(per_block), "%tid.x": index % per_block}
        parameters, alive = dict(zip(self._names, args)), np.ones(threads, bool)
        for line in self._lines:
            if line.startswith("@"):
                predicate, what = line.split()
                if what != "ret":
                    raise Broken(f"unknown PTX: {line}")
                alive = alive & ~r[predicate[1:]]
                continue
            name, *operands = line.replace(",", " ").split()
            a, b, c, d = (*operands, "", "", "", "")[:4]
            match name:
                case "ld.param.u32" | "ld.param.u64":
                    r[a] = np.full(threads, parameters[b.strip("[]")], np.uint64)
                case "ld.param.f32":
                    r[a] = np.float32(parameters[b.strip("[]")])
                case "mov.u32":
                    r[a] = r[b]
                case "mad.lo.u32":
                    r[a] = r[b] * r[c] + r[d]
                case "setp.ge.u32":
                    r[a] = r[b] >= r[c]
                case "setp.eq.f32":
                    r[a] = r[b] == np.frombuffer(bytes.fromhex(c[2:])[::-1], np.float32)[0]
                case "mul.wide.u32":
                    r[a] = r[b] * np.uint64(int(c))
                case "add.u64":
                    r[a] = r[b] + r[c]
                case "ld.global.f32":
                    r[a] = np.zeros(threads, np.float32)
                    r[a][alive] = _memory(r[b.strip("[]")][alive])
                case "st.global.f32":
                    _memory(r[a.strip("[]")][alive], r[b][alive])
                case "mul.rn.f32":
                    r[a] = r[b] * r[c]
                case "fma.rn.f32":  # one rounding: a product of float32 is exact in float64
                    r[a] = (r[b].astype(np.float64) * np.float64(r[c]) + r[d]).astype(np.float32)
                case "ret":
                    return
                case _:
                    raise Broken(f"unknown PTX: {line}")


def _memory(addresses: np.ndarray, values: np.ndarray | None = None) -> Any:
    """Reads or writes float32 at consecutive or chosen addresses, each of which must be allocated."""
    if not len(addresses):
        return np.zeros(0, np.float32)
    first, last = int(addresses.min()), int(addresses.max())
    block = gpu.floats_at(first, (last - first) // 4 + 1)
    places = (addresses - np.uint64(first)) // np.uint64(4)
    if values is None:
        return block[places.astype(np.int64)]
    block[places.astype(np.int64)] = values
    return None
