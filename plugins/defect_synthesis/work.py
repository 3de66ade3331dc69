"""A request for defects becomes denoising problems, and their results become pictures, masks and annotations.

An item is a defect in a copy of the picture. Everything it draws comes from its own seed: item 0 has the job's, so that
any item can be made again alone, as a job with that seed. Several items go through the network together; a long thin
mask takes several rounds, each seeing what the earlier ones drew. Only one full picture is held beside the source.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...config import typed
from ...config.refusal import Refusal
from ...engines import noise
from ..kind import Artifact, Outcome, Problem, Task
from ..provenance import add_text
from . import blend, coco, masks, picture, region
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
    """One defect on its way: its mask, the windows that draw it, and what they have drawn so far."""

    number: int
    seed: int
    defect: str
    severity: float
    mask: region.Mask
    steps: list[region.Step]
    drawn: list[tuple[region.Window, region.Mask, np.ndarray]] = field(default_factory=list)


def work(params: Params, task: Task) -> Generator[Problem, np.ndarray, Outcome]:
    """See `plugins.kind.JobKind.work`."""
    source, image = _source(params, task)
    grey = picture.grey_of(image)
    place = place_of(grey, params.region, _mask(params, task))
    classes, looks = task.bundle.manifest.classes, _looks(task)
    facts = {**task.origin, "seed": str(task.seed), "source_sha256": hashlib.sha256(source).hexdigest()}
    facts |= {"synthetic": "true", "digital_source_type": SYNTHETIC}
    shown, images, annotations, made = [], [], [], []
    for first in range(0, params.count, task.point.batch):
        numbers = range(first, min(first + task.point.batch, params.count))
        items = [_item(n, params, task, place, looks, grey.shape) for n in numbers]
        for turn in range(max(len(item.steps) for item in items)):
            live = [item for item in items if turn < len(item.steps)]
            problem, gains = _problem(live, turn, grey, picture.full_scale(image), classes)
            result = yield problem
            for item, change, gain in zip(live, result[:, 0], gains):
                step = item.steps[turn]
                item.drawn.append((step.window, step.share, change * gain))
        for item in items:
            change = blend.total_change(item.drawn, item.mask)
            mask = blend.published(change, item.mask)
            name = f"{item.number:03d}_{item.defect}"
            rim = 1 + max(2.0**step.window.scale for step in item.steps)
            _save(task.folder, name, blend.blended(image, change, item.mask, mask, rim), mask, facts, item)
            height, width = grey.shape
            images.append({"id": item.number + 1, "file_name": f"{name}.png", "width": width, "height": height})
            annotations.append(coco.annotation(item.number + 1, classes.index(item.defect) + 1, mask, grey.shape))
            box = [mask.x, mask.y, mask.pixels.shape[1], mask.pixels.shape[0]]
            shown.append(
                {"image": f"{name}.png", "mask": f"{name}_mask.png", "defect": item.defect, "box": box, "seed": item.seed}
            )
            made += [Artifact(f"{name}.png", "image/png", "image"), Artifact(f"{name}_mask.png", "image/png", "mask")]
    (task.folder / "annotations.json").write_text(coco.document(facts, classes, images, annotations))
    made.append(Artifact("annotations.json", "application/json", "annotations"))
    return Outcome(tuple(made), {"items": shown, "annotations": "annotations.json"})


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


def _item(number: int, params: Params, task: Task, place: Place, looks: dict[str, Look], shape: tuple[int, ...]) -> Item:
    """Class, severity and mask of one item; the order of the draws is part of what a seed means."""
    seed = task.seed if number == 0 else int(noise.generator(task.seed, number, DRAWS).integers(1 << 53))
    rng = noise.generator(seed, 0, DRAWS)
    any_class = task.bundle.manifest.classes[int(rng.integers(len(task.bundle.manifest.classes)))]
    any_severity = float(rng.uniform(0.35, 0.95))
    defect = any_class if params.defect == ANY else params.defect
    mask = place.draw(looks[defect].shape, rng)
    severity = any_severity if params.severity is None else params.severity
    return Item(number, seed, defect, severity, mask, region.plan(mask, shape))


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


def _save(folder: Path, name: str, image: np.ndarray, mask: region.Mask, facts: Mapping[str, str], item: Item) -> None:
    """The picture and its mask as PNG files that say what they are."""
    own = {
        **facts,
        "item": str(item.number),
        "item_seed": str(item.seed),
        "defect": item.defect,
        "severity": f"{item.severity:.3f}",
    }
    text = {"DigitalSourceType": SYNTHETIC, **{f"denoised:{key}": value for key, value in own.items()}}
    full = np.zeros(image.shape[:2], np.uint8)
    h, w = mask.pixels.shape
    full[mask.y : mask.y + h, mask.x : mask.x + w] = mask.pixels * 255
    for suffix, pixels in (("", image), ("_mask", full)):
        (folder / f"{name}{suffix}.png").write_bytes(add_text(picture.encode(pixels), text))
