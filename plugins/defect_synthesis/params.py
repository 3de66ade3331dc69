"""The params of a `defect-synthesis` request, as the contract has them. Imports no array library: the supervisor reads them."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from ...config import typed
from ...config.typed import Bad, Parsed

FAR = 1_000_000
"""No picture is wider or higher than this many pixels."""
GATES = ("off", "on", "strict")
"""off: nothing is checked. on: what fails is drawn again, and marked if it still fails. strict: then it is left out."""
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Base64 = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True)
class Image:
    """The picture of a good part: a path inside the input folders, the file itself as base64, or a camera's frame."""

    path: Text | None = None
    data: Base64 | None = None
    camera: Text | None = None

    def __post_init__(self) -> None:
        _one_of({"path": self.path, "data": self.data, "camera": self.camera})
        _check_base64(self.data)


@dataclass(frozen=True)
class MaskFile:
    """A picture of the image's size, 255 where the defect shall be: a path inside the input folders, or base64."""

    path: Text | None = None
    data: Base64 | None = None

    def __post_init__(self) -> None:
        _one_of({"path": self.path, "data": self.data})
        _check_base64(self.data)


@dataclass(frozen=True)
class Region:
    """Where the defect shall be, pixels from the upper left corner; with nothing given the kind chooses a place on the part."""

    box: tuple[int, int, int, int] | None = None
    polygon: tuple[tuple[float, float], ...] | None = None
    mask: MaskFile | None = None

    def __post_init__(self) -> None:
        if self.box:
            x, y, w, h = self.box
            if w <= 0 or h <= 0:
                raise Bad("box", f"expected [x, y, width, height] with width and height of at least 1, found {list(self.box)}")
            if x < 0 or y < 0 or max(self.box) > FAR:
                raise Bad("box", f"expected a box inside the image, found {list(self.box)}")
        if self.polygon is not None:
            _check_polygon(self.polygon)


def _read_region(value: Any) -> Region:
    if value == "auto":
        return Region()
    if isinstance(value, str):
        raise ValueError(f"expected 'auto' or an object with box, polygon or mask, found {typed.show(value)}")
    region = typed.read(value, Region)
    _one_of({"box": region.box, "polygon": region.polygon, "mask": region.mask})
    return region


def _read_gate(value: Any) -> str:
    """YAML takes a bare off and on for false and true."""
    mode = ("off", "on")[value] if isinstance(value, bool) else value
    if mode not in GATES:
        raise ValueError(f"expected {', '.join(GATES)}, found {typed.show(value)}")
    return str(mode)


@dataclass(frozen=True)
class Params:
    """What a `defect-synthesis` request may say."""

    image: Image
    model: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    defect: Annotated[str, Meta(min_length=1, max_length=64)] = "any"
    count: Annotated[int, Meta(ge=1, le=1000)] = 1
    region: Annotated[Region, Parsed(_read_region)] = Region()
    severity: Annotated[float, Meta(ge=0, le=1)] | None = None
    gate: Annotated[str, Parsed(_read_gate)] = "on"


def _one_of(choices: dict[str, Any]) -> None:
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"expected exactly one of {', '.join(choices)}, found {' and '.join(given) or 'none'}")


def _check_base64(data: str | None) -> None:
    if data is not None:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as e:
            raise Bad("data", f"expected the picture file as base64, found text that is not: {e}") from e


def _check_polygon(points: tuple[tuple[float, float], ...]) -> None:
    if not 3 <= len(points) <= 10_000:
        raise Bad("polygon", f"expected 3 to 10000 points [x, y], found {len(points)}")
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y) and 0 <= x <= FAR and 0 <= y <= FAR):
            raise Bad("polygon", f"expected points inside the image, found [{x:g}, {y:g}]")
    twice = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, (*points[1:], points[0])))
    if abs(twice) < 2:
        raise Bad("polygon", "expected a polygon that encloses at least one pixel, found points on a line")
