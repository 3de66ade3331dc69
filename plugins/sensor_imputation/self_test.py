"""A job that needs nothing of the plant: sensors that follow each other, with gaps in every window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engines import noise
from .gaussian import HALF

_WINDOWS, _TAGS, _LOST = 16, 7, 0.3


def params() -> dict[str, Any]:
    """The params of the request; always the same."""
    rng = noise.generator(0, 0, 0)
    rows = (_WINDOWS + 1) * HALF
    walks = np.cumsum(rng.standard_normal((rows, 3)), 0) @ rng.standard_normal((3, _TAGS))
    values = walks + rng.standard_normal((rows, _TAGS))
    lost = rng.random((rows, _TAGS)) < _LOST
    table = [[None if gone else value for value, gone in zip(*pair)] for pair in zip(values.tolist(), lost.tolist())]
    return {"tags": [f"tag{k}" for k in range(_TAGS)], "values": table}
