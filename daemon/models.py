"""Which model bundles this gateway has, and what it offers to requests: shared by supervisor, worker and commands."""

from __future__ import annotations

import os
from pathlib import Path

from ..config.tree import Config
from ..engines.bundle import SHIPPED, Bundle, find_bundles
from ..plugins.kind import Site


def job_threads(config: Config) -> int:
    """Threads of one network call: as the config says, or the cores we may use, less one for the bus."""
    wanted = config.engine.threads
    return wanted if isinstance(wanted, int) else max(1, len(os.sched_getaffinity(0)) - 1)


def find_models(config: Config) -> tuple[dict[str, tuple[Bundle, ...]], list[str]]:
    """Bundles by kind, the default first (installed before shipped, one of each name), and why others are left out."""
    installed, problems = find_bundles(config.models_dir)
    if installed and config.models.require_signature:
        names = ", ".join(b.manifest.name for b in installed)
        problems.append(
            f"{config.models_dir}: {names} left out: signatures are not checked by this version, "
            "so installed bundles load only with models.require_signature: false"
        )
        installed = []
    shipped, broken = find_bundles(SHIPPED)
    by_kind: dict[str, dict[str, Bundle]] = {}
    for bundle in (*installed, *shipped):
        by_kind.setdefault(bundle.manifest.kind, {}).setdefault(bundle.manifest.name, bundle)
    return {kind: tuple(named.values()) for kind, named in by_kind.items()}, problems + broken


def site_of(config: Config, models: dict[str, tuple[Bundle, ...]]) -> Site:
    """What a request may name here."""
    return Site(
        folders=config.input_folders,
        cameras=frozenset(config.cameras),
        models=models,
        max_pixels=round(config.inputs.max_megapixels * 1e6),
        calibrations=Path(config.state_dir) / "sensors",
    )
