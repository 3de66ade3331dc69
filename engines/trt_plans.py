"""The cache of TensorRT plans: which plan belongs to which network on which machine, and which may be loaded.

A plan is made for one network, one TensorRT, one GPU and one range of shapes; each is part of its identity, and another
value of any of them is another plan. Beside `NAME-ID.plan` lies `NAME-ID.json`, which says what it is. A plan is native
code: it is loaded only from a file that nobody else may write and whose digest is the one that was written down. Everything
here can be deleted at any time; it is built again. Imports no TensorRT.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .engine import EngineLoadError, TensorSpec
from .trt_library import Gpu

Ranges = Mapping[str, tuple[int, int, int]]
"""Free dimension, by its symbol in the ONNX file -> (least, usual, most). Kernels are chosen for the usual one."""
ANY_RANGE = (1, 8, 16)
"""For a free dimension that nobody said anything about."""
OPTIONS = {"tf32": False, "optimization_level": 3, "strongly_typed": True}
"""How every plan is built. No TF32: fp32 means fp32, and who wants speed takes a variant whose distance was measured."""
KEPT = 3
"""Plans of one network that stay: the one in use, and those of earlier versions for the way back."""
REFUSALS = 2
"""A plan that TensorRT refused is built again once, not for ever."""


@dataclass(frozen=True)
class Identity:
    """All that a plan hangs on."""

    network: str
    """Name for people: the bundle's folder and the file's stem."""
    onnx_sha256: str
    library: str
    gpu: str
    capability: str
    processors: int
    cuda: str
    ranges: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=lambda: dict(OPTIONS))

    def plan(self, cache: Path) -> Path:
        """Where this plan lies in `cache`, whether it is there or not."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return cache / f"{self.network}-{digest[:16]}.plan"


@dataclass(frozen=True)
class Sidecar:
    """What is written beside a plan."""

    identity: Identity
    plan_sha256: str = ""
    """Empty where the plan was refused and is gone."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    built_s: float = 0.0
    refused: int = 0


def identify(onnx: Path, library: str, gpu: Gpu, ranges: Ranges) -> Identity:
    """The identity of the network at `onnx` built by `library` for `gpu`. Weights in files beside it count."""
    for symbol, (least, usual, most) in ranges.items():
        if not 1 <= least <= usual <= most:
            raise EngineLoadError(f"range of '{symbol}': expected 1 <= least <= usual <= most, found {least}, {usual}, {most}")
    digest = hashlib.sha256()
    try:
        # By convention external weights are called after the file that names them: denoiser.onnx.data.
        for path in [onnx, *sorted(p for p in onnx.parent.glob(f"{onnx.name}?*") if p.is_file())]:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as e:
        raise EngineLoadError(f"{onnx}: {e.strerror}") from e
    return Identity(
        network=f"{onnx.resolve().parent.name}-{onnx.stem}",
        onnx_sha256=digest.hexdigest(),
        library=library,
        gpu=gpu.name,
        capability=gpu.capability,
        processors=gpu.processors,
        cuda=gpu.cuda,
        ranges={symbol: tuple(ranges[symbol]) for symbol in sorted(ranges)},  # type: ignore[misc]
    )


def look_up(identity: Identity, cache: Path) -> Path | None:
    """The plan of this identity, if it is there with its sidecar; `EngineLoadError` if it was refused too often."""
    plan = identity.plan(cache)
    sidecar = read_sidecar(plan)
    if sidecar is None or sidecar.identity != identity:
        return None
    if sidecar.refused >= REFUSALS:
        raise EngineLoadError(
            f"{plan}: {identity.library} refused this plan {sidecar.refused} times although it had built it; "
            f"use engine.backend: onnxruntime, and delete {plan.with_suffix('.json')} to try once more"
        )
    return plan if sidecar.plan_sha256 and plan.is_file() else None


def read_sidecar(plan: Path) -> Sidecar | None:
    """What is written beside `plan`; None where there is nothing, or nothing of ours."""
    try:
        raw = json.loads(plan.with_suffix(".json").read_bytes())
        ranges = {symbol: (int(a), int(b), int(c)) for symbol, (a, b, c) in raw["identity"].pop("ranges").items()}
        identity = Identity(**raw.pop("identity"), ranges=ranges)
        inputs, outputs = (
            tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in raw.pop(side)) for side in ("inputs", "outputs")
        )
        return Sidecar(identity, inputs=inputs, outputs=outputs, **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_plan(plan: Path) -> tuple[bytes, Sidecar]:
    """The bytes of a plan that may be loaded. One that may not be is deleted, and `EngineLoadError` says why."""
    sidecar = read_sidecar(plan)
    try:
        with plan.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except OSError as e:
        raise EngineLoadError(f"{plan}: {e.strerror}; it is built again from the ONNX file") from e
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        flaw = "others may write it, and a plan is native code"
    elif sidecar is None:
        flaw = "nothing beside it says what it is"
    elif hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        flaw = f"damaged (its sha256 is not the one in {plan.with_suffix('.json').name})"
    else:
        return data, sidecar
    with contextlib.suppress(OSError):
        plan.unlink()
    raise EngineLoadError(f"{plan}: {flaw}; deleted, it is built again from the ONNX file")


def refuse(plan: Path) -> None:
    """TensorRT does not take this plan: deletes it and writes down that it did."""
    sidecar = read_sidecar(plan)
    plan.unlink(missing_ok=True)
    if sidecar:
        changed = {**asdict(sidecar), "plan_sha256": "", "refused": sidecar.refused + 1}
        write(plan.with_suffix(".json"), json.dumps(changed, indent=1).encode())


def keep(plan: Path, data: Any, sidecar: Sidecar) -> None:
    """Makes a plan durable, then its sidecar: only both together are a plan. Older plans of the network give way."""
    before = read_sidecar(plan)
    refused = before.refused if before and before.identity == sidecar.identity else 0
    described = {**asdict(sidecar), "plan_sha256": hashlib.sha256(data).hexdigest(), "refused": refused}
    write(plan, data)
    write(plan.with_suffix(".json"), json.dumps(described, indent=1).encode())
    _prune(plan.parent, f"{sidecar.identity.network}-{'?' * 16}.plan", KEPT)


def write(path: Path, data: Any) -> None:
    """All of it or nothing, also where the power fails. Writable by us alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def timing_cache(identity: Identity, cache: Path) -> Path:
    """How long each kernel took on this very GPU with this very TensorRT; makes later builds short."""
    bound = f"{identity.library} {identity.gpu} {identity.capability} {identity.processors} {identity.cuda}"
    return cache / f"timing-{hashlib.sha256(bound.encode()).hexdigest()[:16]}.cache"


def keep_timing(path: Path, data: Any) -> None:
    """Writes a timing cache; those of other versions give way in time."""
    write(path, data)
    _prune(path.parent, "timing-*.cache", KEPT)


def sweep(cache: Path) -> None:
    """Removes what builds that were killed left. Only under the lock of a build."""
    for left in cache.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def _prune(folder: Path, pattern: str, kept: int) -> None:
    for old in sorted(_ages(folder, pattern), reverse=True)[kept:]:
        for file in (old[1], old[1].with_suffix(".json")):
            file.unlink(missing_ok=True)


def _ages(folder: Path, pattern: str) -> Iterator[tuple[float, Path]]:
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            yield path.stat().st_mtime, path
