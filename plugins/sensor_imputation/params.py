"""What a `sensor-imputation` request may say. Light: the supervisor reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Union

from msgspec import Meta

from ...config.typed import Bad, show

Cell = Union[int, float, None]
Tag = Annotated[str, Meta(min_length=1, max_length=256)]
Level = Annotated[float, Meta(ge=0.001, le=0.999)]

MOST_ROWS = 100_000
MOST_CELLS = 1_000_000
MOST_ANSWERS = 8_000_000
"""Cells times quantiles: what one reply may hold."""

_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class ImputationParams:
    """Rows of `values` are times, equally spaced and ascending; columns are tags; null is missing."""

    tags: Annotated[tuple[Tag, ...], Meta(min_length=1, max_length=256, description="names of the columns")]
    values: Annotated[
        tuple[tuple[Cell, ...], ...],
        Meta(min_length=1, max_length=MOST_ROWS, description="rows of numbers, null where missing"),
    ]
    model: Annotated[str | None, Meta(description="model bundle; default: the first of this kind")] = None
    period_ms: Annotated[Union[int, float, None], Meta(description="time between two rows, milliseconds; given back")] = None
    start: Annotated[str | None, Meta(description="time of the first row, RFC 3339; given back")] = None
    quantiles: Annotated[
        tuple[Level, ...], Meta(min_length=1, max_length=21, description="levels wanted, such as 0.05, 0.5, 0.95")
    ] = (0.05, 0.5, 0.95)
    samples: Annotated[int, Meta(ge=1, le=256, description="members of the ensemble behind the quantiles")] = 32

    def __post_init__(self) -> None:
        for i, tag in enumerate(self.tags):
            if tag in self.tags[:i]:
                raise Bad(f"tags[{i}]", f"tag {show(tag)} stands here twice; each tag has one column")
        if len(set(self.quantiles)) != len(self.quantiles):
            raise Bad("quantiles", f"expected each level once, found {list(self.quantiles)}")
        if self.period_ms is not None and not 0 < self.period_ms <= 1e12:
            raise Bad("period_ms", f"expected more than 0 and at most 1e12 milliseconds, found {show(self.period_ms)}")
        if self.start is not None and not _is_time(self.start):
            raise Bad("start", f"expected a time such as 2026-11-22T10:15:30.250Z, found {show(self.start)}")
        cells = len(self.values) * len(self.tags)
        if cells > MOST_CELLS or cells * len(self.quantiles) > MOST_ANSWERS:
            raise Bad(
                "values",
                f"{len(self.values)} rows of {len(self.tags)} tags with {len(self.quantiles)} quantiles are too many; at most "
                f"{MOST_CELLS} cells and {MOST_ANSWERS} numbers in the answer: send the series in parts",
            )
        for i, row in enumerate(self.values):
            if len(row) != len(self.tags):
                raise Bad(f"values[{i}]", f"expected {len(self.tags)} values, one per tag, found {len(row)}")
        measured = [value for row in self.values for value in row if value is not None]
        if not measured:
            raise Bad("values", "nothing was measured: every value is null, so there is nothing to answer from")
        if _finite(measured):
            return
        for i, row in enumerate(self.values):
            if not all(value is None or _finite((value,)) for value in row):
                j = next(j for j, value in enumerate(row) if value is not None and not _finite((value,)))
                raise Bad(f"values[{i}][{j}]", f"expected a finite number up to 1.7e308 or null, found {show(row[j])}")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:  # a thirteenth month
        return False
    return _TIME.fullmatch(text) is not None


def _finite(values: Sequence[Union[int, float]]) -> bool:
    """One sum tells it of most windows; where that is not finite, every value has its turn: large ones may add up to it."""
    try:
        return math.isfinite(sum(values)) or all(map(math.isfinite, values))
    except OverflowError:  # an integer beyond any float
        return False
