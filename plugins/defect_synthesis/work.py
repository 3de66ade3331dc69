"""A request for defects becomes denoising problems, and their results become pictures, masks and annotations.

An item is a defect in a copy of the picture. Everything it draws comes from its own seed: item 0 has the job's, so that
any item can be made again alone, as a job with that seed. Several items go through the network together; a long thin
mask takes several rounds, each seeing what the earlier ones drew. What the gate rejects is drawn again with another seed.
Only one full picture is held beside the source.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...config import typed
from ...config.refusal import Refusal
from ...engines import noise
from ..kind import Artifact, Outcome, Problem, Task
from ..provenance import add_text
from . import blend, coco, gate, masks, measure, picture, region
from .kind import ANY
from .params import Params
from .place import Place, place_of

DRAWS = 1 << 40
"""The noise stream of classes, places and severities; the windows of an item follow it, far from any step number."""
SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@dataclass(frozen=True)
class Look:
    """What the bundle says of a class beside its weights: its shape, and the change's strength at severity 0 ... 1."""

    shape: masks.Shape
    strength: tuple[float, ...]


@dataclass
class Item:
    """One defect on its way: its mask, the windows that draw it, and what they have drawn so far.

    seeds: the ones of this try and of those to come. best: the earlier try that failed the fewest conditions.
    """

    number: int
    seed: int
    seeds: Iterator[int]
    defect: str
    severity: float
    mask: region.Mask
    steps: list[region.Step]
    drawn: list[tuple[region.Window, region.Mask, np.ndarray]] = field(default_factory=list)
    tries: int = 1
    verdict: gate.Verdict | None = None
    best: Item | None = None


class Made:
    """What the job delivers: files in its folder, and what the result and the COCO file say of them, in the items' order."""

    def __init__(self, params: Params, task: Task, facts: Mapping[str, str]):
        self._gated, self._task, self._facts = params.gate != "off", task, facts
        self._rows: list[tuple[int, dict[str, Any], dict[str, Any], dict[str, Any]]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, item: Item, image: np.ndarray) -> None:
        """Blends the item into the good picture and saves it."""
        change, shown, rim = _finished(item)
        name, verdict = f"{item.number:03d}_{item.defect}", item.verdict or gate.Verdict()
        own = {"item": str(item.number), "item_seed": str(item.seed), "defect": item.defect, "severity": f"{item.severity:.3f}"}
        passed = "rejected: " + ", ".join(verdict.reasons) if verdict.reasons else "accepted"
        text = {**self._facts, **own, "gate": passed if self._gated else "off"}
        _save(self._task.folder, name, blend.blended(image, change, item.mask, shown, rim), shown, text)
        height, width = image.shape[:2]
        picture = {"id": item.number + 1, "file_name": f"{name}.png", "width": width, "height": height}
        category = self._task.bundle.manifest.classes.index(item.defect) + 1
        note = coco.annotation(item.number + 1, category, shown, image.shape)
        box = [shown.x, shown.y, shown.pixels.shape[1], shown.pixels.shape[0]]
        told = {"image": f"{name}.png", "mask": f"{name}_mask.png", "defect": item.defect, "box": box, "seed": item.seed}
        if self._gated:
            note["accepted"] = not verdict.reasons
            told |= {"accepted": not verdict.reasons, "tries": item.tries, "scores": dict(verdict.scores)}
            told |= {"reasons": list(verdict.reasons)} if verdict.reasons else {}
        self._rows.append((item.number, told, picture, note))

    def outcome(self, about_gate: Mapping[str, Any]) -> Outcome:
        """Writes the COCO file; the whole of it."""
        self._rows.sort(key=lambda row: row[0])
        classes = self._task.bundle.manifest.classes
        text = coco.document(self._facts, classes, (r[2] for r in self._rows), (r[3] for r in self._rows))
        (self._task.folder / "annotations.json").write_text(text)
        files = [Artifact(row[1][role], "image/png", role) for row in self._rows for role in ("image", "mask")]
        files.append(Artifact("annotations.json", "application/json", "annotations"))
        items = [row[1] for row in self._rows]
        return Outcome(tuple(files), {"items": items, "annotations": "annotations.json", "gate": dict(about_gate)})


def work(params: Params, task: Task) -> Generator[Problem, np.ndarray, Outcome]:
    """See `plugins.kind.JobKind.work`.

    Up to a batch of items is drawn together. One that the gate rejects takes its next try beside those that follow. An
    item is compared with the accepted ones of lower numbers alone, and waits for them, so that the batch does not matter.
    """
    source, image = _source(params, task)
    grey = picture.grey_of(image)
    top = picture.full_scale(image)
    place = place_of(grey, params.region, _mask(params, task))
    looks = _looks(task)
    facts = {**task.origin, "seed": str(task.seed), "source_sha256": hashlib.sha256(source).hexdigest()}
    facts |= {"synthetic": "true", "digital_source_type": SYNTHETIC}
    judge, made = _gate(params, task, grey, top, place), Made(params, task, facts)
    waiting: list[Item] = []
    number = 0
    while waiting or number < params.count:
        fresh = sum(not item.drawn for item in waiting)
        while fresh < task.point.batch and number < params.count and len(waiting) < 4 * task.point.batch:
            waiting.append(_item(number, _seeds(task.seed, number), params, task, place, looks, grey.shape))
            number, fresh = number + 1, fresh + 1
        yield from _draw([item for item in waiting if not item.drawn][: task.point.batch], grey, top, task)
        left: list[Item] = []
        for item in waiting:
            if not item.drawn:
                left.append(item)
                continue
            if item.verdict is None:
                item.verdict = gate.Verdict() if judge.mode == "off" else judge.judge(_view(item, image), item.defect)
            if not item.verdict.reasons:
                if left:
                    left.append(item)
                    continue
                item.verdict = judge.among(item.verdict)
            if item.verdict.reasons:
                judge.reject(item.verdict)
                if item.tries < judge.tries:
                    left.append(_again(item, params, task, place, looks, grey.shape))
                    continue
                item = _better(item)
                if judge.mode == "strict":
                    continue
            made.add(item, image)
        waiting = left
    return made.outcome(judge.summary(params.count, len(made)))


def _gate(params: Params, task: Task, grey: np.ndarray, top: float, place: Place) -> gate.Gate:
    reference = gate.read_reference(task.bundle) if params.gate != "off" else None
    has_detector = reference is not None and "detector" in task.bundle.manifest.variants[task.point.variant]
    detector = task.network("detector") if has_detector else None
    defects = task.bundle.manifest.classes if params.defect == ANY else (params.defect,)
    return gate.Gate(params.gate, reference, detector, grey, top, defects, place.given is not None)


def _draw(items: list[Item], grey: np.ndarray, top: float, task: Task) -> Generator[Problem, np.ndarray, None]:
    """All windows of these items, one turn after the other."""
    for turn in range(max((len(item.steps) for item in items), default=0)):
        live = [item for item in items if turn < len(item.steps)]
        problem, gains = _problem(live, turn, grey, top, task.bundle.manifest.classes)
        result = yield problem
        for item, change, gain in zip(live, result[:, 0], gains):
            step = item.steps[turn]
            item.drawn.append((step.window, step.share, change * gain))


def _finished(item: Item) -> tuple[np.ndarray, region.Mask, float]:
    """The change over the item's mask, the part of the mask in which it is seen, and over how many pixels it fades in."""
    change = blend.total_change(item.drawn, item.mask)
    return change, blend.published(change, item.mask), 1 + max(2.0**step.window.scale for step in item.steps)


def _view(item: Item, image: np.ndarray) -> measure.View:
    change, shown, rim = _finished(item)
    return measure.view_of(image, change, item.mask, shown, rim)


def _better(item: Item) -> Item:
    """Of an item and its earlier tries the one that failed the fewest conditions, the earliest of those."""
    assert item.verdict is not None
    earlier = item.best
    if earlier is None or earlier.verdict is None or len(earlier.verdict.reasons) > len(item.verdict.reasons):
        return item
    earlier.tries = item.tries
    return earlier


def _source(params: Params, task: Task) -> tuple[bytes, np.ndarray]:
    """The picture's file and its pixels."""
    image = params.image
    if image.camera is not None:
        if task.frame is None:
            raise Refusal("input", f"camera '{image.camera}' delivered no frame", "params.image.camera")
        data, blamed = task.frame.read_bytes(), "params.image.camera"
    else:
        data, blamed = _read(image.path, image.data, task, "params.image")
    return data, picture.decode(data, blamed, task.site.max_pixels)


def _mask(params: Params, task: Task) -> np.ndarray | None:
    """The pixels of the mask picture (H, W), where the region names one."""
    wanted = params.region.mask
    if wanted is None:
        return None
    data, blamed = _read(wanted.path, wanted.data, task, "params.region.mask")
    return picture.grey_of(picture.decode(data, blamed, task.site.max_pixels))


def _read(path: str | None, data: str | None, task: Task, blamed: str) -> tuple[bytes, str]:
    if path is not None:
        blamed += ".path"
        return picture.read_file(task.site.input_path(path, blamed), blamed, task.site.max_pixels), blamed
    return base64.b64decode(data or "", validate=True), f"{blamed}.data"


def _looks(task: Task) -> dict[str, Look]:
    plain: Mapping[str, Any] = json.loads(task.bundle.file(task.bundle.manifest.geometry["shapes"]).read_text())
    shapes: dict[str, Look] = {}
    for name, facts in plain.items():
        shape = {key: value for key, value in facts.items() if key != "strength"}
        shapes[name] = Look(typed.read(shape, masks.Shape), tuple(facts["strength"]))
    return shapes


def _seeds(seed: int, number: int) -> Iterator[int]:
    """The seeds of one item's tries; a job with one of them makes this try again as its first one."""
    yield seed if number == 0 else int(noise.generator(seed, number, DRAWS).integers(1 << 53))
    more = noise.generator(seed, number, DRAWS - 1)
    while True:
        yield int(more.integers(1 << 53))


def _item(
    number: int, seeds: Iterator[int], params: Params, task: Task, place: Place, looks: dict[str, Look], shape: tuple[int, ...],
    defect: str | None = None,
) -> Item:  # fmt: skip
    """Class, severity and mask of one item; the order of the draws is part of what a seed means.

    defect: the class that it must have, where an earlier try of it had one: what is hard to draw must not become rare.
    """
    while True:
        seed = next(seeds)
        rng = noise.generator(seed, 0, DRAWS)
        any_class = task.bundle.manifest.classes[int(rng.integers(len(task.bundle.manifest.classes)))]
        if params.defect != ANY or defect in (None, any_class):
            break
    any_severity = float(rng.uniform(0.35, 0.95))
    chosen = any_class if params.defect == ANY else params.defect
    mask = place.draw(looks[chosen].shape, rng)
    severity = any_severity if params.severity is None else params.severity
    return Item(number, seed, seeds, chosen, severity, mask, region.plan(mask, shape))


def _again(item: Item, params: Params, task: Task, place: Place, looks: dict[str, Look], shape: tuple[int, ...]) -> Item:
    """The item's next try."""
    fresh = _item(item.number, item.seeds, params, task, place, looks, shape, item.defect)
    fresh.tries, fresh.best = item.tries + 1, _better(item)
    return fresh


def _problem(
    items: list[Item], turn: int, grey: np.ndarray, top: float, classes: tuple[str, ...]
) -> tuple[Problem, list[float]]:
    """Window `turn` of each item as network inputs, and the gain of each: grey levels of 255 per unit of the result."""
    side = region.SIDE
    x, clean, mask = (np.zeros((len(items), 1, side, side), np.float32) for _ in range(3))
    label, gains = np.zeros((len(items), len(classes)), np.float32), []
    for i, item in enumerate(items):
        step = item.steps[turn]
        seen = region.shrink(_so_far(item, step.window, grey, top))
        mask[i, 0] = region.shrink_mask(step.share.cut(step.window))
        level, gain = region.units(seen, mask[i, 0])
        clean[i, 0] = np.clip((seen - level) / gain, -4, 4)
        white = noise.gaussian(item.seed, 0, DRAWS + 1 + turn, (side, side))
        x[i, 0] = region.start(white) * mask[i, 0]
        label[i, classes.index(item.defect)] = 1
        gains.append(gain)
    cond = {
        "clean": clean, "mask": mask, "label": label,
        "severity": np.array([item.severity for item in items], np.float32),
        "scale": np.array([item.steps[turn].window.scale for item in items], np.float32),
    }  # fmt: skip
    return Problem(x, cond, tuple(item.number for item in items)), gains


def _so_far(item: Item, window: region.Window, grey: np.ndarray, top: float) -> np.ndarray:
    """The window's pixels (h, w), float32 0..255, with what the item's earlier windows drew."""
    seen = grey[window.slices].astype(np.float32) * np.float32(255 / top)
    for earlier, share, change in item.drawn:
        drawn = np.where(share.cut(earlier) > 0, region.change_at_full_size(change, earlier), 0)
        y, x = earlier.y - window.y, earlier.x - window.x
        there = seen[max(y, 0) : max(y + earlier.h, 0), max(x, 0) : max(x + earlier.w, 0)]
        there += drawn[max(-y, 0) :, max(-x, 0) :][: there.shape[0], : there.shape[1]]
    return np.asarray(np.clip(seen, 0, 255), np.float32)


def _save(folder: Path, name: str, image: np.ndarray, mask: region.Mask, facts: Mapping[str, str]) -> None:
    """The picture and its mask as PNG files that say what they are."""
    text = {"DigitalSourceType": SYNTHETIC, **{f"denoised:{key}": value for key, value in facts.items()}}
    full = np.zeros(image.shape[:2], np.uint8)
    h, w = mask.pixels.shape
    full[mask.y : mask.y + h, mask.x : mask.x + w] = mask.pixels * 255
    for suffix, pixels in (("", image), ("_mask", full)):
        (folder / f"{name}{suffix}.png").write_bytes(add_text(picture.encode(pixels), text))
