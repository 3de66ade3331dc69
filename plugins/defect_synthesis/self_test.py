"""A job that needs nothing of the plant: defects of every class on a brushed surface of our own making."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from ...engines import noise
from .picture import encode

_HEIGHT, _WIDTH, _COUNT = 384, 512, 16


def params() -> dict[str, Any]:
    """The params of the request; always the same. Without the gate: every draw is one item, whatever it looks like."""
    return {"image": {"data": base64.b64encode(encode(_surface())).decode()}, "count": _COUNT, "gate": "off"}


def _surface() -> np.ndarray:
    """(_HEIGHT, _WIDTH) uint8: fine upright marks over slow shading, about as bright as ground metal."""
    white = noise.gaussian(0, 0, 0, (2, _HEIGHT, _WIDTH))
    marks, shading = cv2.GaussianBlur(white[0], (0, 0), 0.8, sigmaY=40.0), cv2.GaussianBlur(white[1], (0, 0), 60.0)
    grey = 130 + 12 * marks / marks.std() + 15 * shading / shading.std()
    return np.clip(grey, 0, 255).astype(np.uint8)
