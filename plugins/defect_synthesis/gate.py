"""The acceptance gate: is a synthetic defect one that a detector may learn from? Numbers and a reason for each rejection.

What a good defect looks like is told by the bundle's `gate.json`, made from real defects alone (training/defects_gate.py):
bands of contrast and completeness, floors of a small detector's agreement with the mask, and what training pictures look
like, as projections that nobody can turn back into pictures. All numbers are taken from the windows of SIDE x SIDE that the
network would see, so that the picture's resolution does not matter. Where the bundle has no such file, or the surface is
unlike those that it was made on, the gate checks what remains and says so.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...config import typed
from ...config.refusal import Refusal
from ...engines.bundle import Bundle, BundleError
from ...engines.engine import Engine
from . import measure

TRIES = {"off": 1, "on": 3, "strict": 8}
"""How often an item is drawn at most until it is accepted."""
SEAM = 1.2
"""Gradient along the outside of the outline over that of the good picture; above it the border is seen."""
COPY = 0.95
"""Correlation above which two patches are one, where the bundle does not know how alike real defects are."""
REFERRED = ("contrast", "completeness", "agreement", "original")
"""Conditions that hold for the surfaces alone that the reference was made on."""

Range = tuple[float, float]


@dataclass(frozen=True)
class ClassReference:
    """What the real defects of one class are like.

    contrast, completeness: 5 to 95 % bands. agreement: least IoU of detector and mask; None: the detector does not find them.
    novelty, outline: how alike the patches and outlines of different parts are, 95 % point.
    """

    contrast: Range
    completeness: Range
    agreement: float | None
    novelty: float
    outline: float
    pictures: int
    parts: int


@dataclass(frozen=True)
class Reference:
    """`gate.json`. descriptors: (n, measure.DIMS) int8, outlines: (n, OUTLINE ** 2) bits, both base64.

    level: the detector's logit from which a cell counts as defect. silent: share of the mask that it may call defect in the
    good picture. surface: see `measure.surface`.
    """

    classes: dict[str, ClassReference]
    level: float
    silent: float
    surface: dict[str, Range]
    descriptors: str
    outlines: str


@dataclass(frozen=True)
class Verdict:
    """Numbers by condition, and the conditions that failed; accepted where none did.

    descriptor, alike: by what it is known again, and from which correlation on another one is the same.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    descriptor: np.ndarray | None = None
    alike: float = COPY


def read_reference(bundle: Bundle) -> Reference | None:
    """The bundle's `gate.json`, or None where it has none; `BundleError` where it is not what this version reads."""
    name = bundle.manifest.geometry.get("gate")
    if name is None:
        return None
    try:
        return typed.read(json.loads(bundle.file(name).read_text()), Reference)
    except (ValueError, OSError) as e:
        raise BundleError(f"{bundle.folder / name}: {e}; make it again: denoised-train gate {bundle.folder}") from e


class Gate:
    """The gate of one job: what is wanted, what the bundle knows, and what was accepted so far."""

    def __init__(
        self, mode: str, reference: Reference | None, detector: Engine | None, grey: np.ndarray, top: float,
        defects: Sequence[str], given: bool,
    ):  # fmt: skip
        """grey: the good picture (H, W), 0..top. defects: the classes that may occur. given: the requester chose the mask,
        whose outline is not ours to judge.
        """
        self.mode, self._reference, self._detector, self._given = mode, reference, detector, given
        self._defects = defects
        self.unlike = [] if mode == "off" else self._unlike(grey, top)
        if mode == "strict" and self.unlike:
            what = "; ".join(self.unlike)
            text = f"the surface is unlike those that the gate's reference was made on ({what}); 'gate: on' checks what remains"
            raise Refusal("input", text, "params.gate")
        self._known = self._outlines = None
        if mode != "off" and reference is not None:
            kept = np.frombuffer(base64.b64decode(reference.descriptors), np.int8).reshape(-1, measure.DIMS).astype(np.float32)
            self._known = kept / (np.linalg.norm(kept, axis=1, keepdims=True) + np.float32(1e-6))
            bits = np.frombuffer(base64.b64decode(reference.outlines), np.uint8).reshape(-1, measure.OUTLINE**2 // 8)
            self._outlines = np.unpackbits(bits, axis=1).astype(np.float32)
        self._accepted: list[np.ndarray] = []
        self._rejected, self._reasons = 0, dict[str, int]()

    def _unlike(self, grey: np.ndarray, top: float) -> list[str]:
        if self._reference is None:
            return []
        found = measure.surface(grey, top)
        bands = self._reference.surface.items()
        return [f"{k} {found[k]:.3f}, known {lo:.3f} to {hi:.3f}" for k, (lo, hi) in bands if not lo <= found[k] <= hi]

    @property
    def tries(self) -> int:
        """How often an item is drawn at most."""
        return TRIES[self.mode]

    def summary(self, count: int, delivered: int) -> dict[str, Any]:
        """What the result says of it: accepted + marked + left_out is the count that was asked for."""
        if self.mode == "off":
            return {"mode": "off"}
        accepted = len(self._accepted)
        told: dict[str, Any] = {
            "mode": self.mode,
            "accepted": accepted,
            "marked": delivered - accepted,
            "left_out": count - delivered,
        }
        told |= {"rejected": self._rejected, "reasons": dict(sorted(self._reasons.items()))}
        return {**told, "unchecked": self._unchecked()}

    def _unchecked(self) -> list[str]:
        """Conditions that cannot be checked here for at least one of the job's classes."""
        if self._reference is None:
            return [*REFERRED, "novelty", *([] if self._given else ["outline"])]
        if self.unlike:
            return list(REFERRED)
        blind = self._detector is None or any(self._reference.classes[d].agreement is None for d in self._defects)
        return ["agreement", "original"] if blind else []

    def judge(self, view: measure.View, defect: str) -> Verdict:
        """All conditions but the likeness to the job's other items."""
        scores = {"containment": float(view.leaked), **measure.look(view)}
        reasons = ["containment"] if view.leaked else []
        if scores.get("seam", 0.0) > SEAM:
            reasons.append("seam")
        many = measure.descriptors(view)
        reference = self._reference
        if reference is None or self._known is None or self._outlines is None:
            return Verdict(_plain(scores), tuple(reasons), many)
        mine = reference.classes[defect]
        scores["novelty"] = _likeness(many, self._known)
        reasons += ["novelty"] if scores["novelty"] > mine.novelty else []
        if not self._given:
            scores["outline"] = float(measure.likeness_of_outlines(measure.outline(view)[0], self._outlines).max(initial=0.0))
            reasons += ["outline"] if scores["outline"] > mine.outline else []
        if not self.unlike:
            for name, (low, high) in (("contrast", mine.contrast), ("completeness", mine.completeness)):
                if name in scores and not low <= scores[name] <= high:
                    reasons.append(f"{name}-low" if scores[name] < low else f"{name}-high")
            if self._detector is not None and mine.agreement is not None:
                cells, n = measure.on_grid(view.mask), len(view.mask)
                response = measure.respond(self._detector, np.concatenate([view.after, view.before]))
                scores["agreement"] = measure.agreement(response[:n], cells, reference.level)
                scores["original"] = measure.coverage(response[n:], cells, reference.level)
                reasons += ["agreement"] if scores["agreement"] < mine.agreement else []
                reasons += ["original"] if scores["original"] > reference.silent else []
        return Verdict(_plain(scores), tuple(reasons), many, mine.novelty)

    def among(self, verdict: Verdict) -> Verdict:
        """The verdict with the likeness to the items accepted so far; an accepted one is remembered from now on."""
        if verdict.descriptor is None or verdict.reasons:
            return verdict
        scores, reasons = dict(verdict.scores), verdict.reasons
        if self._accepted:
            scores["collapse"] = round(_likeness(verdict.descriptor, np.stack(self._accepted)), 3)
            reasons = ("collapse",) if scores["collapse"] > verdict.alike else ()
        if not reasons:
            self._accepted.append(verdict.descriptor[0])
        return replace(verdict, scores=scores, reasons=reasons)

    def reject(self, verdict: Verdict) -> None:
        """Counts a draw that was not accepted."""
        self._rejected += 1
        for reason in verdict.reasons:
            self._reasons[reason] = self._reasons.get(reason, 0) + 1


def _likeness(many: np.ndarray, known: np.ndarray) -> float:
    """The best correlation of a patch in all its positions (m, measure.DIMS) with any of the known ones (n, measure.DIMS)."""
    return float((many @ known.T).max(initial=0.0))


def _plain(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in scores.items()}
