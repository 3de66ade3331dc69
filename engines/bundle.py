"""A model as shipped: a folder with `model.yaml`, its ONNX files and `SHA256SUMS`. Opens no network itself.

BundleError    the folder is not a bundle, or not the one that its sums describe
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta

from ..config import typed
from .denoiser import Guidance
from .samplers import SAMPLERS
from .schedules import SCHEDULES, schedule

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: ten times as fast, and a worker reads every manifest at its start."""
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


NO_SAMPLER = "none"


class BundleError(ValueError):
    """What is wrong with a bundle, where, and what to do."""


_ALLOWED: dict[tuple[str, str], tuple[str, Callable[[float], bool]]] = {
    ("unipc", "order"): ("order 1, 2 or 3", lambda value: value in (1, 2, 3)),
    ("ddim", "eta"): ("eta from 0 to 1", lambda value: 0 <= value <= 1),
}
"""Choices for which not every number makes a method: in words, and as a test."""


@dataclass(frozen=True)
class OperatingPoint:
    """One way to run a bundle: variant, sampler, steps, batch; with the quality that was measured there.

    0 steps of the sampler `none`: nothing is denoised, for kinds that have an answer without; a variant may then have no
    networks at all.
    sampler_args: the method's own choices (`eta`, `order`, `s_churn` ...). guidance: for kinds whose problems can be told
    without their condition.
    """

    variant: str = "fp32"
    sampler: str = "dpmpp_2m"
    steps: Annotated[int, Meta(ge=0, le=1000)] = 8
    batch: Annotated[int, Meta(ge=1, le=1024)] = 1
    quality: dict[str, float] = field(default_factory=dict)
    sampler_args: dict[str, float] = field(default_factory=dict)
    guidance: Guidance | None = None

    def __post_init__(self) -> None:
        if (self.sampler == NO_SAMPLER) != (self.steps == 0):
            raise typed.Bad(
                "steps", f"0 steps and the sampler '{NO_SAMPLER}' go together, found {self.steps} of '{self.sampler}'"
            )
        if self.steps:
            check_choice("sampler", self.sampler, "sampler_args", self.sampler_args, SAMPLERS)


@dataclass(frozen=True)
class Manifest:
    """`model.yaml`. `geometry` is the kind's own section (window or region of interest) and read by the kind.

    ranges: size of a free dimension of the networks, by its symbol: (least, usual, most), for backends that compile for it.
    """

    name: Name
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+([.-][0-9A-Za-z.-]+)?$")]
    kind: Name
    licence: str
    training: dict[str, Any]
    prediction: Literal["eps", "v", "x0"]
    schedule: str
    variants: dict[str, dict[str, str]]
    operating_points: tuple[OperatingPoint, ...]
    schedule_args: dict[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    geometry: dict[str, Any] = field(default_factory=dict)
    ranges: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, "schedule_args", self.schedule_args, SCHEDULES)
        if not self.operating_points:
            raise typed.Bad("operating_points", "expected at least one; the first is the default")
        for i, point in enumerate(self.operating_points):
            if point.variant not in self.variants:
                known = ", ".join(self.variants)
                raise typed.Bad("operating_points", f"point {i} names variant '{point.variant}'; known: {known}")
            self._check_levels(i, point)
        for symbol, (least, usual, most) in self.ranges.items():
            if not 1 <= least <= usual <= most:
                found = f"{least}, {usual}, {most}"
                raise typed.Bad("ranges", f"range of '{symbol}': expected 1 <= least <= usual <= most, found {found}")

    def _check_levels(self, i: int, point: OperatingPoint) -> None:
        """The point's noise levels must fall from step to step and end in 0, or the samplers divide by nothing."""
        if not point.steps:
            return
        try:
            sigmas = schedule(self.schedule, point.steps, **self.schedule_args)
        except (ArithmeticError, ValueError, IndexError) as e:
            raise typed.Bad(
                "schedule_args", f"point {i}: {self.schedule} of {point.steps} steps has no noise levels: {e}"
            ) from e
        if sigmas[-1] != 0 or any(a <= b for a, b in zip(sigmas, sigmas[1:])):
            found = ", ".join(f"{s:.4g}" for s in (*sigmas[:3], *sigmas[-3:]))
            raise typed.Bad(
                "schedule_args",
                f"point {i}: the noise levels of {self.schedule} must fall from step to step to 0, found {found}",
            )


def check_choice(
    field: str, name: str, args_field: str, args: dict[str, float], known: Mapping[str, Callable[..., Any]]
) -> None:
    """`name` must be a function of `known`, and `args` numbers that it takes by keyword; else `typed.Bad`."""
    if name not in known:
        raise typed.Bad(field, f"unknown {field} '{name}'{typed.did_you_mean(name, known)}")
    takes = [p.name for p in inspect.signature(known[name]).parameters.values() if isinstance(p.default, (int, float))]
    for arg in args:
        if arg not in takes:
            raise typed.Bad(args_field, f"{name} takes {', '.join(takes) or 'no such choices'}, found '{arg}'")
        words, allows = _ALLOWED.get((name, arg), ("", lambda value: True))
        if not allows(args[arg]):
            raise typed.Bad(args_field, f"{name}: expected {words}, found {arg}: {args[arg]:g}")


@dataclass(frozen=True)
class Bundle:
    """A folder and what it says of itself; `sha256` is the hash of its SHA256SUMS and so of everything in it."""

    folder: Path
    manifest: Manifest
    sums: dict[str, str]
    sha256: str

    def file(self, name: str) -> Path:
        """The path of a file of the bundle; it must be listed in SHA256SUMS."""
        if name not in self.sums:
            raise BundleError(f"{self.folder}: {name} is not listed in SHA256SUMS")
        return self.folder / name

    def verify(self) -> None:
        """Every listed file against its sum; `BundleError` names the first that differs."""
        for name in self.sums:
            self.verified(name)

    def verified(self, name: str) -> Path:
        """The path of a file of the bundle that is what its sum says."""
        path, want = self.file(name), self.sums[name]
        try:
            have = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as e:
            raise BundleError(f"{path}: {e.strerror}; install the model again") from e
        if have != want:
            raise BundleError(f"{path}: damaged (sha256 {have[:12]}..., expected {want[:12]}...)")
        return path


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, its manifest checked and its sums read, its files not yet verified."""
    try:
        sums_text = (folder / "SHA256SUMS").read_text("ascii")
        manifest_bytes = (folder / "model.yaml").read_bytes()
    except (OSError, UnicodeDecodeError) as e:
        raise BundleError(f"{folder}: not a model bundle: {e}") from e
    sums = {}
    for line in sums_text.splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or "/" in name or name.startswith("."):
            raise BundleError(f"{folder / 'SHA256SUMS'}: expected lines of 'sha256  file', found {line!r}")
        sums[name] = digest
    if sums.get("model.yaml") != hashlib.sha256(manifest_bytes).hexdigest():
        raise BundleError(f"{folder / 'model.yaml'}: differs from its sum in SHA256SUMS; install the model again")
    try:
        manifest = typed.read(yaml.load(manifest_bytes, _LOADER), Manifest)
    except (yaml.YAMLError, typed.Flaws) as e:
        raise BundleError(f"{folder / 'model.yaml'}: {e}") from e
    return Bundle(folder, manifest, sums, hashlib.sha256(sums_text.encode()).hexdigest())


def write_sums(folder: Path) -> None:
    """Makes SHA256SUMS over every file in `folder`; the last thing done when a bundle is made."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / "SHA256SUMS").write_text("".join(lines), "ascii")


def find_bundles(*folders: Path) -> tuple[list[Bundle], list[str]]:
    """Every bundle in these folders (in name order, later folders after earlier), and why each other folder is not one."""
    good, bad = [], []
    for folder in folders:
        for sub in sorted(p for p in folder.glob("*") if p.is_dir()):
            try:
                good.append(read_bundle(sub))
            except BundleError as e:
                bad.append(str(e))
    return good, bad


SHIPPED = Path(__file__).resolve().parent.parent / "models"
"""Where the bundles that come with the package lie."""
