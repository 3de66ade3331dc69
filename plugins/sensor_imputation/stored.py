"""What a site has learnt of a group of sensors: made from its history by `denoised calibrate-sensors`, read by every job.

One file per group, `<state_dir>/sensors/<name>.npz`, whole or not at all. A job is served by the smallest group that holds
all of its tags. A file that is damaged or of another form, or was made for another model, counts as absent, and why is said.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .gaussian import LENGTH, Calibration
from .response import CLASSES, Response
from .season import Season

FORMAT = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Tags of a group that are looked at together: their columns in the group, and what is known of them.

    gaussian, network: how the answers of the closed form alone, and of the network, must be changed here.
    """

    columns: np.ndarray
    calibration: Calibration
    gaussian: Response
    network: Response

    def of(self, wanted: Sequence[int]) -> Part:
        """Only these of its tags, by their place in `columns`."""
        k = np.array(wanted)
        c = self.calibration
        season = c.season and Season(c.season.mean[:, k], c.season.lags[:, :, k[:, None], k])
        marks = tuple(c.marks[i] for i in k.tolist()) if c.marks else ()
        return Part(
            self.columns[k],
            Calibration(c.mean[k], c.std[k], c.lags[:, k[:, None], k], c.rows, c.known[k], c.peaked[k], season, marks),
            replace(self.gaussian, stretch=self.gaussian.stretch[:, k]),
            replace(self.network, stretch=self.network.stretch[:, k]),
        )


@dataclass(frozen=True)
class Stored:
    """All that is known of a group. model_sha256: the network that `Part.network` was measured with."""

    tags: tuple[str, ...]
    period_ms: float | None
    model_sha256: str
    parts: tuple[Part, ...]

    @property
    def rows(self) -> float:
        """Rows of history, as a mean over the tags."""
        return float(np.mean([p.calibration.rows for p in self.parts]))


@dataclass(frozen=True)
class Found:
    """A stored group that serves a request: its name, and its parts with columns counted in the request's tags."""

    name: str
    rows: float
    parts: tuple[Part, ...]


def find(folder: Path | None, tags: Sequence[str], period_ms: float | None, model_sha256: str) -> Found | None:
    """What is stored of these tags, measured at this period where both say one; None where nothing serves."""
    serving = []
    for path in sorted(folder.glob("*.npz")) if folder else ():
        stored, why = load(path)
        if stored is None:
            if why:  # else it went away meanwhile
                _warn(f"{why}; jobs are calibrated from their own rows meanwhile")
        elif not set(tags) <= set(stored.tags):
            continue
        elif stored.model_sha256 != model_sha256:
            _warn(f"{path}: made for another version of the model; run 'denoised calibrate-sensors' again")
        elif not (period_ms and stored.period_ms and abs(period_ms / stored.period_ms - 1) > 0.01):
            serving.append((len(stored.tags), path, stored))
    if not serving:
        return None
    _, path, stored = min(serving, key=lambda s: (s[0], s[1]))
    place = {tag: i for i, tag in enumerate(tags)}
    parts = []
    for part in stored.parts:
        kept = [i for i, column in enumerate(part.columns.tolist()) if stored.tags[column] in place]
        if kept:
            own = part.of(kept)
            parts.append(replace(own, columns=np.array([place[stored.tags[c]] for c in own.columns.tolist()])))
    return Found(path.stem, stored.rows, tuple(parts))


@lru_cache(maxsize=64)
def _warn(words: str) -> None:
    """Once for all jobs of this process: a live group asks each second."""
    log.warning("%s", words)


def load(path: Path) -> tuple[Stored | None, str | None]:
    """What is stored at `path`, else why it cannot be used; both None where there is nothing."""
    try:
        state = path.stat()
        return _loaded(path, state.st_mtime_ns, state.st_size), None
    except FileNotFoundError:
        return None, None
    except OSError as e:
        return None, f"{path}: cannot be read: {e.strerror or e}"
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
        return None, f"{path}: damaged or of another form ({e}); run 'denoised calibrate-sensors' again"


@lru_cache(maxsize=16)
def _loaded(path: Path, changed: int, size: int) -> Stored:
    """Read once for every state of the file: a live group asks each second."""
    with np.load(path, allow_pickle=False) as file:
        if int(file["format"]) != FORMAT:
            raise ValueError(f"format {int(file['format'])}, expected {FORMAT}")
        parts = tuple(
            _part({name.partition("/")[2]: file[name] for name in file.files if name.startswith(f"{i}/")})
            for i in range(int(file["parts"]))
        )
        period = float(file["period_ms"])
        stored = Stored(tuple(map(str, file["tags"])), period or None, str(file["model_sha256"]), parts)
    if sorted(np.concatenate([p.columns for p in parts]).tolist()) != list(range(len(stored.tags))):
        raise ValueError("not every tag is in one part")
    return stored


def store(path: Path, stored: Stored) -> None:
    """Durable and whole, or what was there before."""
    arrays: dict[str, Any] = {"format": FORMAT, "tags": np.array(stored.tags), "model_sha256": stored.model_sha256}
    arrays |= {"period_ms": stored.period_ms or 0.0, "parts": len(stored.parts)}
    for i, part in enumerate(stored.parts):
        arrays |= {f"{i}/{name}": value for name, value in _arrays(part).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with draft.open("wb") as f:
        np.savez_compressed(f, **arrays)
        f.flush()
        os.fsync(f.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


_PLAIN = ("mean", "std", "lags", "known", "peaked")


def _arrays(part: Part) -> dict[str, np.ndarray]:
    """Everything in a part by name; covariances in single precision."""
    c = part.calibration
    out = {name: getattr(c, name) for name in _PLAIN} | {"columns": part.columns, "rows": np.array(c.rows)}
    out["lags"] = c.lags.astype(np.float32)
    if c.season:
        out |= {"season/mean": c.season.mean, "season/lags": c.season.lags.astype(np.float32)}
    for name, response in (("gaussian", part.gaussian), ("network", part.network)):
        out |= {f"{name}/{f.name}": getattr(response, f.name) for f in fields(Response)}
    out["marks"] = np.array([len(m) for m in c.marks], int)
    out["marks/values"] = np.concatenate([*c.marks, np.zeros(0)])
    return out


def _part(a: dict[str, np.ndarray]) -> Part:
    """Of `_arrays`; `ValueError` where the shapes do not fit each other or a number is not finite."""
    tags = len(a["columns"])
    wanted = {"mean": (tags,), "std": (tags,), "known": (tags,), "peaked": (tags,), "lags": (LENGTH, tags, tags)}
    wanted |= {f"{r}/blend": (CLASSES,) for r in ("gaussian", "network")}
    wanted |= {f"{r}/stretch": (CLASSES, tags, 9) for r in ("gaussian", "network")}
    if "season/mean" in a:
        wanted["season/lags"] = (len(a["season/mean"]), LENGTH, tags, tags)
    for name, shape in wanted.items():
        if a[name].shape != shape or not np.isfinite(a[name]).all():
            raise ValueError(f"{name}: expected finite numbers of shape {shape}, found {a[name].shape}")
    season = Season(a["season/mean"], a["season/lags"].astype(float)) if "season/mean" in a else None
    ends = np.cumsum(a["marks"])
    marks = tuple(np.split(a["marks/values"], ends[:-1])) if len(ends) else ()
    c = Calibration(a["mean"], a["std"], a["lags"].astype(float), float(a["rows"]), a["known"], a["peaked"], season, marks)
    return Part(a["columns"], c, *(Response(a[f"{r}/blend"], a[f"{r}/stretch"]) for r in ("gaussian", "network")))
