"""The quality report of a trained line: figures in report.md, and for each class a picture of real and synthetic defects.

Draws through the job kind with its gate on, on the good pictures; what is shown is chosen by nothing but its number.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..engines.bundle import Bundle
from ..engines.engine import open_engine
from ..plugins.defect_synthesis.gate import Reference
from ..plugins.defect_synthesis.kind import KIND
from ..plugins.kind import Site, Task
from ..plugins.play import play
from .defects_check import Checked

TILE, COLUMNS, DRAWN = 128, 8, 16
"""Side of a picture in the sheets, pictures in a row, synthetic defects drawn of each class."""


def report(bundle: Bundle, checked: Checked, reference: Reference, folder: Path, minutes: float) -> None:
    """Leaves report.md and <class>.png in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    point = bundle.manifest.operating_points[0]
    engines = {name: open_engine(bundle.file(file)) for name, file in bundle.manifest.variants[point.variant].items()}
    lines = [f"# {bundle.manifest.name} {bundle.manifest.version}", "", *_pictures(checked), "", *_points(bundle), ""]
    lines += ["## The gate", "", *_bands(reference), ""]
    rows = []
    for defect in bundle.manifest.classes:
        print(f"report: drawing {defect}", flush=True)
        told, drawn = _draw(bundle, engines, checked.good, defect)
        real = [_tile(_grey(p.path), _grey(p.mask)) for p in checked.pictures if p.defect == defect][: 2 * COLUMNS]
        _sheet(folder / f"{defect}.png", defect, real, drawn)
        rows.append((defect, told))
    lines += [
        "## What it draws",
        "",
        f"{DRAWN} of each class on good pictures, `gate: on`, {point.sampler}, {point.steps} steps.",
        "",
    ]
    lines += _table(
        ("class", "accepted", "marked", "draws rejected", "reasons"),
        [
            (d, t["accepted"], t["marked"], t["rejected"], ", ".join(f"{k} {v}" for k, v in t["reasons"].items()))
            for d, t in rows
        ],
    )
    for defect, told in rows:
        lines += ["", f"### {defect}", "", *_verdict(told), "", f"![real and synthetic {defect}]({defect}.png)"]
    lines += ["", *_reading(), "", f"Made in {minutes:.1f} CPU minutes."]
    (folder / "report.md").write_text("\n".join(lines) + "\n", "utf-8")
    for engine in engines.values():
        engine.close()


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]


def _pictures(checked: Checked) -> list[str]:
    rows = []
    for defect in checked.classes:
        shares = [p.share for p in checked.pictures if p.defect == defect]
        rows.append((defect, *checked.count(defect), f"{100 * min(shares):.2g} to {100 * max(shares):.2g} %"))
    notes = [f"- {note}" for note in checked.notes]
    words = ["## Trained on", "", *_table(("class", "pictures", "parts", "of the picture"), rows)]
    return [*words, "", f"{len(checked.good)} good pictures.", *([""] if notes else []), *notes]


def _points(bundle: Bundle) -> list[str]:
    rows = [(p.variant, p.sampler, p.steps, p.quality.get("rms_grey", "")) for p in bundle.manifest.operating_points]
    words = "RMS distance in grey levels (0 to 255) under the mask to 50 steps of DDIM from the same noise."
    return ["## Operating points", "", *_table(("variant", "sampler", "steps", "RMS"), rows), "", words]


def _bands(reference: Reference) -> list[str]:
    rows = []
    for name, mine in reference.classes.items():
        found = "not judged" if mine.agreement is None else f"{mine.agreement:.2f}"
        rows.append((name, *("{:.2f} to {:.2f}".format(*b) for b in (mine.contrast, mine.completeness)), found, mine.novelty))
    head = ("class", "contrast", "completeness", "agreement at least", "novelty at most")
    return [
        *_table(head, rows),
        "",
        "*Not judged*: on parts that it had not seen the detector did not find real defects of this class.",
    ]


def _verdict(told: Mapping[str, Any]) -> list[str]:
    share = told["accepted"] / max(told["accepted"] + told["rejected"], 1)
    if share >= 0.5:
        return [
            f"{share:.0%} of the draws are accepted: nothing is measured against this class; the pictures have the last word."
        ]
    if share >= 0.2:
        return [f"{share:.0%} of the draws are accepted: take `gate: strict`, and look at what it lets through."]
    return [f"{share:.0%} of the draws are accepted: not usable yet; train longer, or on more parts."]


def _reading() -> list[str]:
    return [
        "The pictures: real defects above, synthetic ones below, each good | mask | synthetic; red frame: marked by the gate.",
        "The figures say whether synthetic defects look like real ones in contrast, outline and to a detector. What they are",
        "worth is told by `denoised-train evaluate` on pictures that were held back, and by nothing else.",
    ]


def _draw(
    bundle: Bundle, engines: Mapping[str, Any], good: Sequence[Path], defect: str
) -> tuple[dict[str, Any], list[tuple[np.ndarray, bool]]]:
    """What the gates of the jobs said together, and a triple of each item with whether it was accepted."""
    total: dict[str, Any] = {"accepted": 0, "marked": 0, "rejected": 0, "reasons": Counter()}
    triples, hosts = [], min(len(good), 4)
    for n in range(hosts):
        path = good[n * len(good) // hosts]
        site = Site((path.parent,), models={KIND.name: (bundle,)})
        params = {"image": {"path": path.name}, "defect": defect, "count": DRAWN // hosts}
        with tempfile.TemporaryDirectory() as scratch:
            point = bundle.manifest.operating_points[0]
            task = Task("report", n, Path(scratch), bundle, point, engines.__getitem__, site)
            output = play(KIND, params, task).output
            for key in ("accepted", "marked", "rejected"):
                total[key] += output["gate"][key]
            total["reasons"].update(output["gate"]["reasons"])
            for item in output["items"]:
                mask = _grey(Path(scratch, item["mask"]))
                tiles = [_tile(picture, mask) for picture in (_grey(path), mask, _grey(Path(scratch, item["image"])))]
                triples.append((np.hstack(tiles), item["accepted"]))
    return total, triples


def _grey(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def _tile(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The surroundings of the mask, TILE x TILE."""
    x, y, w, h = cv2.boundingRect((mask > 127).astype(np.uint8))
    side = max(72.0, 1.6 * max(w, h))
    zoom = TILE / side
    at = np.array([[zoom, 0, TILE / 2 - (x + w / 2) * zoom], [0, zoom, TILE / 2 - (y + h / 2) * zoom]], np.float32)
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.warpAffine(picture, at, (TILE, TILE), flags=how))


def _sheet(path: Path, defect: str, real: Sequence[np.ndarray], drawn: Sequence[tuple[np.ndarray, bool]]) -> None:
    width = COLUMNS * TILE
    rows = [_words(f"{defect}, real", width), *_rows(real, width)]
    framed = []
    for triple, accepted in drawn:
        colour = cv2.cvtColor(triple, cv2.COLOR_GRAY2BGR)
        framed.append(colour if accepted else cv2.rectangle(colour, (1, 1), (colour.shape[1] - 2, TILE - 2), (0, 0, 255), 2))
    rows += [_words(f"{defect}, synthetic: good | mask | synthetic", width), *_rows(framed, width)]
    cv2.imwrite(str(path), np.vstack(rows))


def _rows(tiles: Sequence[np.ndarray], width: int) -> list[np.ndarray]:
    """The tiles in rows of `width`, white where there are none, BGR."""
    coloured = [cv2.cvtColor(t, cv2.COLOR_GRAY2BGR) if t.ndim == 2 else t for t in tiles]
    each = width // coloured[0].shape[1] if coloured else 1
    rows = [np.hstack(coloured[i : i + each]) for i in range(0, len(coloured), each)]
    return [cv2.copyMakeBorder(r, 0, 0, 0, width - r.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255)) for r in rows]


def _words(text: str, width: int) -> np.ndarray:
    strip = np.full((18, width, 3), 255, np.uint8)
    return cv2.putText(strip, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
