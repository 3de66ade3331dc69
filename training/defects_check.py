"""Looks through an integrator's pictures before anything is trained: every flaw at once, each with its place, what was found,
what is expected and what to do. Leaves them in the layout that the training reads.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .defects_data import PICTURES

CLASS = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
LEAST_SIDE, LEAST_AREA = 64, 12
MOST_PIXELS = 400_000_000
"""Pixels of all pictures together that are held in memory, 4 bytes each."""
SHOWN = 20
"""Flaws that are printed; of more the number is told."""


class Flawed(ValueError):
    """What is wrong with the pictures, one line each."""

    def __init__(self, flaws: list[str]):
        self.flaws = flaws
        more = [f"... and {len(flaws) - SHOWN} more"] if len(flaws) > SHOWN else []
        super().__init__("\n".join([*flaws[:SHOWN], *more]))


@dataclass(frozen=True)
class Picture:
    """One defect picture: its class, its file, its mask's file, the physical part it shows, and what share is defect."""

    defect: str
    path: Path
    mask: Path
    part: str
    share: float


@dataclass(frozen=True)
class Checked:
    """Pictures that can be trained on. notes: what is no error, and yet the integrator should know."""

    pictures: tuple[Picture, ...]
    good: tuple[Path, ...]
    notes: tuple[str, ...]

    def count(self, defect: str) -> tuple[int, int]:
        """Pictures and physical parts of a class."""
        mine = [p for p in self.pictures if p.defect == defect]
        return len(mine), len({p.part for p in mine})

    @property
    def classes(self) -> list[str]:
        """In the order of the model's label."""
        return sorted({p.defect for p in self.pictures})


def check(images: Path, masks: Path, good: Path) -> Checked:
    """images: `<class>/NAME.png`. masks: `<class>/NAME.png` or `<class>/NAME_mask.png`, 255 = defect. good: without defects."""
    flaws: list[str] = []
    for folder, what in ((images, "pictures of defects"), (masks, "masks"), (good, "pictures of good parts")):
        if not folder.is_dir():
            flaws.append(f"{folder}: no such folder; expected the one with the {what}")
    if flaws:
        raise Flawed(flaws)
    plain = [p for p in _listed(good) if not p.stem.endswith("_mask")]
    folders = [f for f in sorted(images.iterdir()) if f.is_dir() and f.resolve() != good.resolve() and _listed(f)]
    if not plain:
        flaws.append(
            f"{good}: no picture found; expected pictures of good parts ({', '.join(PICTURES)}), 20 or more if you can"
        )
    if not folders:
        found = f"{len(_listed(images))} pictures and no folder" if _listed(images) else "nothing to train on"
        flaws.append(f"{images}: found {found}; expected a folder for each class of defect, as {images}/scratch/NAME.png")
    seen: dict[str, Path] = {}
    pixels = 0
    for path in plain:
        image = _read(path, flaws)
        if image is not None:
            pixels += image.size
            _same(path, seen, flaws)
    found_pictures: list[tuple[str, Path, Path, float]] = []
    for folder in folders:
        if not CLASS.fullmatch(folder.name):
            flaws.append(f"{folder}: '{folder.name}' is no class name; expected a-z, 0-9 and -, at most 32; rename the folder")
        for path in (p for p in _listed(folder) if not p.stem.endswith("_mask")):
            image = _read(path, flaws)
            mask = _mask_of(path, masks / folder.name, flaws)
            if image is None or mask is None:
                continue
            pixels += image.size
            _same(path, seen, flaws)
            share = _mask_share(mask, path, image.shape, flaws)
            if share is not None:
                found_pictures.append((folder.name, path, mask, share))
    if pixels > MOST_PIXELS:
        flaws.append(
            f"{images}: {pixels / 1e6:.0f} megapixels in all, at most {MOST_PIXELS / 1e6:.0f} are taken; "
            f"use fewer good pictures, or make all of them smaller by the same factor"
        )
    if flaws:
        raise Flawed(flaws)
    parts = parts_of([path.stem for _, path, _, _ in found_pictures])
    pictures = tuple(Picture(d, p, m, part, share) for (d, p, m, share), part in zip(found_pictures, parts))
    checked = Checked(pictures, tuple(plain), ())
    return Checked(pictures, tuple(plain), tuple(_notes(checked)))


def stage(checked: Checked, to: Path) -> Path:
    """The defect pictures as `defects_data.read_real` wants them, masks as 0 and 255, in the folder `to`, made anew."""
    shutil.rmtree(to, ignore_errors=True)
    for picture in checked.pictures:
        folder = to / picture.defect
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{picture.path.stem}{picture.path.suffix.lower()}").symlink_to(picture.path.resolve())
        mask = np.asarray(cv2.imread(str(picture.mask), cv2.IMREAD_GRAYSCALE))
        cv2.imwrite(str(folder / f"{picture.path.stem}_mask.png"), ((mask > 127) * 255).astype(np.uint8))
    return to


def identity(checked: Checked) -> str:
    """A hash of all files, so that a training is never gone on with on other pictures."""
    whole = hashlib.sha256()
    for path in [f for p in checked.pictures for f in (p.path, p.mask)] + list(checked.good):
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def parts_of(stems: Sequence[str]) -> list[str]:
    """The physical part of each picture: its name up to the first `_`, or all of it where that would make them all one."""
    short = [stem.split("_")[0] for stem in stems]
    return short if len(set(short)) > 1 else list(stems)


def _listed(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)


def _read(path: Path, flaws: list[str]) -> np.ndarray | None:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        flaws.append(f"{path}: cannot be read as a picture ({path.stat().st_size} bytes); copy it again or leave it out")
        return None
    if min(image.shape) < LEAST_SIDE:
        found = f"{image.shape[1]} x {image.shape[0]}"
        flaws.append(f"{path}: the picture is {found}, at least {LEAST_SIDE} x {LEAST_SIDE} are needed; give the full picture")
        return None
    if image.std() < 1:
        flaws.append(f"{path}: the picture is of one grey ({image.mean():.0f}); leave it out")
        return None
    return np.asarray(image)


def _mask_of(path: Path, folder: Path, flaws: list[str]) -> Path | None:
    names = [f"{path.stem}_mask", path.stem]
    found = [
        p for name in names for p in (folder / f"{name}{s}" for s in PICTURES) if p.exists() and p.resolve() != path.resolve()
    ]
    if not found:
        flaws.append(f"{path}: no mask found; expected {folder / path.stem}_mask.png or {path.stem}.png there, 255 = defect")
        return None
    return found[0]


def _mask_share(mask: Path, path: Path, shape: tuple[int, ...], flaws: list[str]) -> float | None:
    """Share of the picture that is defect; None where the mask cannot be used."""
    pixels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        flaws.append(f"{mask}: cannot be read as a picture; save the mask again as PNG")
        return None
    if pixels.shape != shape:
        found, wanted = (f"{s[1]} x {s[0]}" for s in (pixels.shape, shape))
        flaws.append(f"{mask}: the mask is {found}, its picture {path.name} {wanted}; draw the mask on that picture")
        return None
    between = float(((pixels > 20) & (pixels < 235)).mean())
    set_ = pixels > 127
    if not set_.any():
        hint = "; it looks like 0 and 1 instead of 0 and 255" if 0 < pixels.max() <= 20 else ""
        flaws.append(f"{mask}: the mask is empty, its largest value is {pixels.max()}; expected 255 on the defect{hint}")
    elif set_.mean() > 0.9:
        flaws.append(
            f"{mask}: {set_.mean():.0%} of the picture is marked; expected 255 on the defect and 0 elsewhere: invert it?"
        )
    elif set_.sum() < LEAST_AREA:
        flaws.append(f"{mask}: {set_.sum()} pixels are marked, at least {LEAST_AREA} are needed; mark the whole defect")
    elif between > 0.05:
        flaws.append(
            f"{mask}: {between:.0%} of its pixels are neither 0 nor 255; expected a mask: save it as PNG without shading"
        )
    else:
        return float(set_.mean())
    return None


def _same(path: Path, seen: dict[str, Path], flaws: list[str]) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest in seen:
        flaws.append(f"{path}: the same picture as {seen[digest]}; each is either good or of one class: remove one")
    seen.setdefault(digest, path)


def _notes(checked: Checked) -> Iterable[str]:
    for defect in checked.classes:
        pictures, parts = checked.count(defect)
        if parts < 2:
            yield (
                f"{defect}: {pictures} picture{'s' * (pictures > 1)} of one part; the gate's detector cannot be tried on "
                f"a part that it has not seen, so it does not judge this class. Two parts or more, named PART_..., change that"
            )
        elif pictures < 5:
            yield f"{defect}: {pictures} pictures; 5 or more of different parts make it better"
    if len(checked.good) < 20:
        yield f"{len(checked.good)} good pictures; 20 or more make backgrounds more varied"
