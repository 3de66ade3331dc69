"""One COCO JSON over all items of a job (https://cocodataset.org/#format-data), with the provenance facts in its `info`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from .region import Mask


def segmentation(mask: Mask, shape: tuple[int, ...]) -> list[list[float]] | dict[str, Any]:
    """Polygons whose filled pixel centres are exactly the mask; a run-length code where the mask has holes.

    Polygons run a quarter pixel outside the centres of the outermost pixels, in COCO's coordinates (a pixel's centre is at
    +0.5), so that even a single pixel encloses an area. The run-length code is COCO's uncompressed one, column by column.
    """
    doubled = cv2.resize(mask.pixels, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    outlines, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (tree[0, :, 3] < 0).all():
        corner = np.array([mask.x, mask.y], np.float64)
        return [((o.reshape(-1, 2) + 0.5) / 2 + corner).round(2).ravel().tolist() for o in outlines]
    full = np.zeros(shape[:2], np.uint8)
    h, w = mask.pixels.shape
    full[mask.y : mask.y + h, mask.x : mask.x + w] = mask.pixels
    flat = full.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(shape[:2]), "counts": [0, *counts] if flat[0] else counts}


def annotation(number: int, category: int, mask: Mask, shape: tuple[int, ...]) -> dict[str, Any]:
    """The one annotation of image `number` (from 1)."""
    h, w = mask.pixels.shape
    outline = segmentation(mask, shape)
    return {
        "id": number, "image_id": number, "category_id": category, "segmentation": outline, "bbox": [mask.x, mask.y, w, h],
        "area": int(mask.pixels.sum()), "iscrowd": int(isinstance(outline, dict)),
    }  # fmt: skip


def document(
    facts: Mapping[str, str],
    classes: Sequence[str],
    images: Iterable[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
) -> str:
    """The whole file."""
    return json.dumps(
        {
            "info": {"description": "synthetic defects", **facts},
            "licenses": [],
            "categories": [{"id": i + 1, "name": name, "supercategory": "defect"} for i, name in enumerate(classes)],
            "images": list(images),
            "annotations": list(annotations),
        },
        indent=1,
    )
