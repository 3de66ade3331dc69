"""The sum of a demo: pictures, plot and one COCO file in the output folder, and a few lines of words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .draw import Defect, contact_sheet, sensor_plot
from .line import Line
from .watcher import Watcher


def report(watcher: Watcher, line: Line, tags: list[str], period: float, out: Path, code: int | None) -> int:
    """Pictures, plot, one COCO file, and the sum of it in words."""
    defects = []
    for result in watcher.results:
        for item in result.get("output", {}).get("items", []):
            folder = out / "images" / result["id"]
            good = out / "frames" / f"{result['id']}.png"
            defects.append(Defect(item["defect"], good, folder / item["image"], folder / item["mask"], tuple(item["box"])))
    done = [r for r in watcher.results if r["state"] == "done"]
    _merge_coco(done, out)
    if defects:
        contact_sheet(defects, out / "contact-sheet.png")
    repaired = {(round(at / period), tag): values for (at, tag), values in watcher.repaired.items()}
    if line.rows:
        sensor_plot(tags, line.rows, repaired, period, out / "sensors.png")
    inside, error, interpolated = _score(repaired, line, tags)
    print()
    print(f"parts     {len(line.parts)} triggered, {len(done)} done, {len(watcher.results) - len(done)} failed")
    print(f"defects   {len(defects)} pictures with masks: {out / 'contact-sheet.png'}, {out / 'annotations.json'}")
    print(f"sensors   {watcher.counts['good']} measured, {len(repaired)} imputed: {out / 'sensors.png'}")
    if repaired:
        print(
            f"          {inside:.0%} of the truths inside the 5-95 % band; mean error {error:.3f} of a sensor's deviation"
            f" (holding the last value: {interpolated:.3f})"
        )
    print(f"messages  {out / 'messages.jsonl'}")
    if code != 0:
        print(f"denoised demo: the daemon ended with status {code}; see {out / 'daemon.log'}", file=sys.stderr)
    return 0 if done and len(done) == len(line.parts) and repaired and code == 0 else 1


def _merge_coco(done: list[dict[str, Any]], out: Path) -> None:
    """The jobs' COCO files as one, file names relative to `out`."""
    merged: dict[str, Any] = {"info": {"description": "synthetic defects, made by denoised"}, "images": [], "annotations": []}
    for result in done:
        coco = json.loads((out / "images" / result["id"] / result["output"]["annotations"]).read_text())
        offset = len(merged["images"])
        numbers = {image["id"]: offset + n for n, image in enumerate(coco["images"], 1)}
        for image in coco["images"]:
            name = f"images/{result['id']}/{image['file_name']}"
            merged["images"].append({**image, "id": numbers[image["id"]], "file_name": name})
        for annotation in coco["annotations"]:
            number = len(merged["annotations"]) + 1
            merged["annotations"].append({**annotation, "id": number, "image_id": numbers[annotation["image_id"]]})
        merged["categories"] = coco["categories"]
    (out / "annotations.json").write_text(json.dumps(merged, indent=1))


def _score(
    repaired: dict[tuple[int, str], tuple[float, float, float]], line: Line, tags: list[str]
) -> tuple[float, float, float]:
    """Share of truths inside the band, mean error of the median and of holding the last value, in deviations of the tag."""
    truth = np.array([row.truth for row in line.rows.values()])
    deviation = dict(zip(tags, np.nanstd(truth, axis=0)))
    inside, errors, held = [], [], []
    for (n, tag), (value, low, high) in repaired.items():
        k = tags.index(tag)
        if n not in line.rows or not np.isfinite(line.rows[n].truth[k]) or not deviation[tag]:
            continue
        real = line.rows[n].truth[k]
        inside.append(low <= real <= high)
        errors.append(abs(value - real) / deviation[tag])
        before = (line.rows[m].delivered[k] for m in range(n, n - 400, -1) if m in line.rows)
        last = next((v for v in before if v is not None), None)
        if last is not None:
            held.append(abs(last - real) / deviation[tag])
    means = [float(np.mean(v)) if v else 0.0 for v in (inside, errors, held)]
    return means[0], means[1], means[2]
