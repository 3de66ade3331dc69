"""Makes the variants of a finished bundle, measures each against float32 at equal seeds, and ships those that pass:

    python -m denoised.training.variants models/surface-defects
    python -m denoised.training.variants models/plant-imputer

The bundle needs its fp32 variant alone; a `distilled` one beside it is measured and gets an int8 file too; whatever else is
in it is made again. Problems are procedural, or the windows that a
defect model was trained on where its work/ is still there: one half of them calibrates int8 over all steps, the other half
is measured. A variant is shipped where its distance to float32 is within its kind's limit at every operating point and,
for int8, where its networks take less CPU time. About 1.5 CPU minutes for surface-defects and 1 for plant-imputer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import yaml

from ..engines.bundle import Bundle, OperatingPoint, read_bundle, write_sums
from ..engines.engine import Bound, open_engine
from ..engines.host import over_run
from ..engines.schedules import schedule
from ..plugins.kind import Problem
from ..plugins.play import drive, solve, walk
from ..plugins.sensor_imputation.gaussian import LENGTH, calibrate, standardise
from ..plugins.sensor_imputation.quantiles import LEVELS, of_ensemble
from ..plugins.sensor_imputation.response import Response
from ..plugins.sensor_imputation.series import Way, impute
from . import defects_data, defects_draw, defects_report, plants
from .variants_graph import Feeds, in_half, in_int8, quantisable, with_constant_shapes

SOURCES = ("fp32", "distilled")
"""The float32 variants that a bundle comes with."""
FIT, HELD_OUT = 0, 1
"""The half of the problems that int8 is calibrated on, and the half that everything is measured on."""


class _Watched:
    """An engine that counts its CPU seconds and, while `feeds` is a list, keeps what it is fed."""

    def __init__(self, path: Path):
        self._engine, self.spent = open_engine(path), 0.0
        self.inputs, self.outputs, self.provider = self._engine.inputs, self._engine.outputs, self._engine.provider
        self.feeds: list[Feeds] | None = None

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """See `Engine.run`."""
        if self.feeds is not None:
            self.feeds.append({name: np.array(values) for name, values in feeds.items()})
        began = time.process_time()
        out = self._engine.run(feeds)
        self.spent += time.process_time() - began
        return out

    def bind(self, x: np.ndarray, conditions: Sequence[Feeds]) -> Bound:
        """See `Engine.bind`: through `run`, which watches."""
        return over_run(self, x, conditions)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


Networks = Mapping[str, _Watched]


class Trial(Protocol):
    """What a kind's variants are measured on."""

    variants: tuple[str, ...]
    """Those worth trying; what they cost is measured."""
    limit: float
    """Largest distance to float32 that may be shipped."""
    distance_name: str
    """What the distance is called in the manifest."""

    def answers(self, networks: Networks, point: OperatingPoint, half: int) -> np.ndarray:
        """What the networks make of that half of the problems."""

    def distance(self, answers: np.ndarray, fp32: np.ndarray) -> float:
        """How far answers to the held-out half are from those of float32 at the same point."""

    def quality(self, answers: np.ndarray) -> dict[str, float]:
        """How good answers to the held-out half are by themselves."""

    count: int
    """Windows in the held-out half."""


class Defects:
    """Windows of every class alike. Distances in grey levels (0 to 255) under the mask, RMS."""

    variants, limit, distance_name = ("int8", "fp16"), 2.0, "rms_grey_to_fp32"

    def __init__(self, bundle: Bundle, fp32: Networks, each: int = 8):
        classes = bundle.manifest.classes
        pool = _pool(bundle, max(100, 24 * each))
        halves = ({k: v[half::2] for k, v in pool.items()} for half in (FIT, HELD_OUT))
        self._halves = [defects_report.windows(half, len(classes), each) for half in halves]
        self.count = len(self._halves[HELD_OUT][1])
        self._fp32 = fp32
        self._best: np.ndarray | None = None

    def answers(self, networks: Networks, point: OperatingPoint, half: int) -> np.ndarray:
        """See `Trial`: (windows, 1, 64, 64) in units of the gain."""
        feeds, out = self._halves[half][0], []
        for i in range(0, len(feeds["mask"]), point.batch):
            part = {k: v[i : i + point.batch] for k, v in feeds.items()}
            out.append(defects_report.sample(networks["denoiser"], part, point.sampler, point.steps, seed=i))
        return np.concatenate(out)

    def distance(self, answers: np.ndarray, fp32: np.ndarray) -> float:
        """See `Trial`."""
        feeds, gain = self._halves[HELD_OUT]
        squares = ((answers - fp32) * gain * feeds["mask"]) ** 2
        return float(np.sqrt(squares.sum((1, 2, 3)) / feeds["mask"].sum((1, 2, 3))).mean())

    def quality(self, answers: np.ndarray) -> dict[str, float]:
        """Distance to 50 steps of DDIM in float32 from the same noise."""
        if self._best is None:
            self._best = self.answers(self._fp32, OperatingPoint("fp32", "ddim", 50, 8), HELD_OUT)
        return {"rms_grey": round(self.distance(answers, self._best), 2)}


def _pool(bundle: Bundle, count: int) -> dict[str, np.ndarray]:
    """What the model was trained on, else so many windows on procedural metal parts; see `defects_data.columns`."""
    kept = bundle.folder / "work" / "pool.npz"
    if kept.exists():
        with np.load(kept) as f:
            return dict(f)
    classes = bundle.manifest.classes
    if not set(classes) <= set(defects_draw.PAINTERS):
        raise ValueError(
            f"{kept}: not there, and not all of {', '.join(classes)} can be drawn by procedure; keep work/ of the training"
        )
    return defects_data.columns(defects_data.painted([], classes, {}, count, np.random.default_rng(0)))


class Plants:
    """Windows of synthetic plants with gaps. The distance is the relative change of the CRPS."""

    variants, limit, distance_name = ("int8",), 0.01, "crps_change"

    def __init__(self, bundle: Bundle, fp32: Networks, each: int = 24):
        self._bundle, self._halves = bundle, [[self._case(2 * n + half) for n in range(each)] for half in (FIT, HELD_OUT)]
        self.count = each

    @staticmethod
    def _case(number: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Calibration from history, the window (LENGTH, K) in z units with its gaps, the truth."""
        rng = np.random.default_rng([78, number])
        tags = int(rng.integers(3, 11))
        recording = plants.plant(rng, tags, 1500 + LENGTH)
        calibration = calibrate([recording[:-LENGTH]])
        truth = standardise(recording[-LENGTH:], calibration)
        return calibration, np.where(plants.dropout(rng, LENGTH, tags), np.nan, truth), truth

    def answers(self, networks: Networks, point: OperatingPoint, half: int) -> np.ndarray:
        """See `Trial`: (levels, missing cells of all windows) in z units, from ensembles of 32."""
        manifest, out = self._bundle.manifest, []
        sigmas = schedule(manifest.schedule, point.steps, **manifest.schedule_args) if point.steps else []
        way = Way(networks.get("encoder"), () if point.steps else LEVELS, 32, bool(point.steps), point.batch)

        def solver(problem: Problem) -> np.ndarray:
            if not point.steps:
                return problem.x
            return solve(walk(problem, networks["denoiser"], sigmas, point.sampler, manifest.prediction))

        for number, (calibration, z, _) in enumerate(self._halves[half]):

            def take(at: int, answer: np.ndarray, z: np.ndarray = z) -> None:
                missing = np.isnan(z[at : at + answer.shape[1]])
                out.append((of_ensemble(answer, LEVELS) if point.steps else answer)[:, missing])

            drive(impute(calibration, Response.none(z.shape[1]), z, way, 0, number, take), solver)
        return np.concatenate(out, 1)

    def crps(self, answers: np.ndarray) -> float:
        """Twice the pinball loss averaged over the levels, in z units."""
        truth = self._truth()
        levels = np.array(LEVELS)[:, None]
        d = truth - answers
        return float(2 * np.maximum(levels * d, (levels - 1) * d).mean())

    def distance(self, answers: np.ndarray, fp32: np.ndarray) -> float:
        """See `Trial`."""
        return abs(self.crps(answers) / self.crps(fp32) - 1)

    def quality(self, answers: np.ndarray) -> dict[str, float]:
        """CRPS in standard deviations of the tags, and the share of truths inside the 5-95 % band."""
        truth = self._truth()
        return {
            "crps": round(self.crps(answers), 4),
            "coverage": round(float(((answers[0] <= truth) & (truth <= answers[-1])).mean()), 3),
        }

    def _truth(self) -> np.ndarray:
        return np.concatenate([t[np.isnan(z)] for _, z, t in self._halves[HELD_OUT]])

    def ladder(self, fp32: Networks) -> list[dict[str, Any]]:
        """A manifest entry per rung, from the closed form alone to four steps; CPU time of all the work, the least of three."""
        rows = []
        for variant, sampler, steps in RUNGS:
            point = OperatingPoint(variant, sampler, steps, 8)
            took = []
            for _ in range(3):
                began = time.process_time()
                answers = self.answers(fp32 if variant == "fp32" else {}, point, HELD_OUT)
                took.append(time.process_time() - began)
            quality = self.quality(answers) | {"cpu_ms_per_window": round(min(took) / self.count * 1e3, 2)}
            rows.append({"variant": variant, "sampler": sampler, "steps": steps, "batch": 8, "quality": quality})
            print(f"{variant} {sampler} {steps} steps: {quality}", flush=True)
        return rows


RUNGS: tuple[tuple[str, str, int], ...] = (
    ("fp32", "gaussian_exact", 1),
    ("fp32", "none", 0),
    ("fp32", "gaussian_exact", 2),
    ("fp32", "gaussian_exact", 4),
    ("closed-form", "none", 0),
)
"""Operating points of sensor imputation, the default first: the cheapest that draws joint samples. Where the board is
calibrated the governor may answer from a cheaper rung that is as good."""
TRIALS: dict[str, Any] = {"defect-synthesis": Defects, "sensor-imputation": Plants}


def write_variant(variant: str, source: Path, to: Path, feeds: list[Feeds]) -> None:
    """The network at `source` as fp16 or int8; feeds: what int8 is calibrated on."""
    model = with_constant_shapes(onnx.load(source), feeds[0])
    made = in_half(model) if variant == "fp16" else in_int8(model, quantisable(model), feeds)
    onnx.save(made, to)


def measure(trial: Trial, networks: dict[str, Networks], points: Iterable[OperatingPoint]) -> list[dict[str, Any]]:
    """One manifest entry per point and variant; the first variant is the float32 that the others were made of.

    The variants take turns, three times, and the least CPU time is taken.
    """
    source = next(iter(networks))
    rows: dict[str, list[dict[str, Any]]] = {variant: [] for variant in networks}
    for point in points:
        took = {variant: [0.0] * 3 for variant in networks}
        answers = {}
        for turn in range(3):
            for variant, mine in networks.items():
                began = sum(engine.spent for engine in mine.values())
                answers[variant] = trial.answers(mine, point, HELD_OUT)
                took[variant][turn] = sum(engine.spent for engine in mine.values()) - began
        for variant, found in answers.items():
            quality = trial.quality(found)
            if variant != source:
                quality[trial.distance_name] = round(trial.distance(found, answers[source]), 4)
            quality["cpu_ms_per_window"] = round(min(took[variant]) / trial.count * 1e3, 2)
            place = {"variant": variant, "sampler": point.sampler, "steps": point.steps, "batch": point.batch}
            rows[variant].append({**place, "quality": quality})
            print(f"{variant:14} {point.sampler} {point.steps:3} steps: {quality}", flush=True)
    return [row for of_variant in rows.values() for row in of_variant]


def verdict(variant: str, rows: list[dict[str, Any]], distance: str, limit: float, source: str = "fp32") -> str | None:
    """Why a variant is not shipped, or None. distance: what it is called in the rows; source: what it was made of."""
    worst = max(row["quality"][distance] for row in rows if row["variant"] == variant)
    if worst > limit:
        return f"{distance} {worst:g}, more than {limit:g}"
    times = [sum(r["quality"]["cpu_ms_per_window"] for r in rows if r["variant"] == v) for v in (variant, source)]
    if variant.endswith("int8") and times[0] >= times[1]:
        return f"{times[0] / times[1]:.2f} times the CPU time of {source} ({distance} {worst:g})"
    return None


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m denoised.training.variants", description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of the bundle; its other variants are made again")
    args = parser.parse_args(argv)
    try:
        make(args.bundle)
    except ValueError as e:  # not a bundle, or none that problems can be made for
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def make(folder: Path) -> None:
    """Makes, measures and ships the variants of the bundle in `folder`; prints what it finds."""
    began = time.process_time()
    bundle = read_bundle(folder)
    if "fp32" not in bundle.manifest.variants:
        raise ValueError(f"{folder}: has no variant fp32 to make others of; found {', '.join(bundle.manifest.variants)}")
    trial: Trial = TRIALS[bundle.manifest.kind](bundle, _opened(bundle, "fp32"))
    rows: list[dict[str, Any]] = []
    rungs: list[dict[str, Any]] = []
    shipped: dict[str, dict[str, str]] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        for source in (s for s in SOURCES if s in bundle.manifest.variants):
            files, own = bundle.manifest.variants[source], _opened(bundle, source)
            points = [p for p in bundle.manifest.operating_points if p.variant == source and p.steps]
            for engine in own.values():
                engine.feeds = []
            trial.answers(own, max(points, key=lambda p: p.steps), FIT)
            seen = {name: engine.feeds or [] for name, engine in own.items()}
            for engine in own.values():
                engine.feeds = None
            sampled = {name: file for name, file in files.items() if seen[name]}
            networks: dict[str, Networks] = {source: own}
            for variant in trial.variants if source == "fp32" else ("int8",):
                called = variant if source == "fp32" else f"{source}-{variant}"
                for name, file in sampled.items():
                    write_variant(variant, bundle.folder / file, Path(made, f"{name}-{called}.onnx"), seen[name])
                networks[called] = {name: _Watched(Path(made, f"{name}-{called}.onnx")) for name in sampled}
            rows += measure(trial, networks, points)
            found = {v: verdict(v, rows, trial.distance_name, trial.limit, source) for v in networks if v != source}
            rungs += trial.ladder(own) if isinstance(trial, Plants) and source == "fp32" else []
            refused |= {v: why for v, why in found.items() if why}
            shipped |= {v: {**files, **{n: f"{n}-{v}.onnx" for n in sampled}} for v, why in found.items() if not why}
        about: dict[str, Any] = {"command": f"python -m denoised.training.variants {folder}"}
        about["cpu_minutes"] = round((time.process_time() - began) / 60, 1)
        if refused:
            about["not_shipped"] = refused
            print(*(f"{variant} is not shipped: {why}" for variant, why in refused.items()), sep="\n")
        _ship(bundle, Path(made), shipped, rows, rungs, about)


def _opened(bundle: Bundle, variant: str) -> dict[str, _Watched]:
    return {name: _Watched(bundle.file(file)) for name, file in bundle.manifest.variants[variant].items()}


def _ship(
    bundle: Bundle,
    made: Path,
    shipped: dict[str, dict[str, str]],
    rows: list[dict[str, Any]],
    rungs: list[dict[str, Any]],
    about: dict[str, Any],
) -> None:
    """Puts the files of these variants into the bundle and takes others away; rewrites its manifest and sums.

    A network that sampling never calls (the gate's detector) has no variants: all of them use the same file. rungs: points
    that stand for the float32 ones of rows, those of variants without networks among them.
    """
    kept = {v: files for v, files in bundle.manifest.variants.items() if v in SOURCES}
    there = {f for files in bundle.manifest.variants.values() for f in files.values()}
    for file in there - {f for files in kept.values() for f in files.values()}:
        (bundle.folder / file).unlink(missing_ok=True)
    ours = {f for files in kept.values() for f in files.values()}
    for file in {f for files in shipped.values() for f in files.values()} - ours:
        data = (made / file).read_bytes()
        (bundle.folder / file).write_bytes(data)
        print(f"{file}: {len(data) / 1e6:.2f} MB")
    plain: dict[str, Any] = yaml.safe_load((bundle.folder / "model.yaml").read_text("utf-8"))
    plain["variants"] = kept | shipped
    plain["variants"] |= {row["variant"]: {} for row in rungs if row["variant"] not in plain["variants"]}
    others = [row for row in rows if row["variant"] in plain["variants"] and not (rungs and row["variant"] == "fp32")]
    plain["operating_points"] = rungs + others
    plain["training"]["variants"] = about
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    (bundle.folder / "model.yaml").write_text(text, "utf-8")
    write_sums(bundle.folder)


if __name__ == "__main__":
    sys.exit(main())
