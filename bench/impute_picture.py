"""Where the shipped imputation model helps and where it fails, on plants of our own making, as a picture.

.venv/bin/python bench/impute_picture.py docs/pictures/imputation.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from denoised.demo.draw import GREY, INK, PAPER, save, text
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.engines.engine import open_engine
from denoised.plugins.play import drive
from denoised.plugins.sensor_imputation.gaussian import LENGTH, calibrate, in_units, standardise
from denoised.plugins.sensor_imputation.response import Response
from denoised.plugins.sensor_imputation.series import Way, impute
from denoised.plugins.sensor_imputation.site import learn
from denoised.plugins.sensor_imputation.stored import Part

BUNDLE = read_bundle(SHIPPED / "plant-imputer")
ENCODER = open_engine(BUNDLE.file("encoder.onnx"))
TRUTH, MEDIAN, BAND = (150, 150, 150), (30, 30, 210), (205, 215, 255)
_WIDE, _HIGH = 720, 210


def plant(rows: int, seed: int) -> np.ndarray:
    """Three tags (rows, 3) of one machine with a cycle of 24 rows, livelier in its first half."""
    rng, t = np.random.default_rng(seed), np.arange(rows)
    lively = np.where(t % 24 < 12, 1.0, 0.25)
    load = np.sin(2 * np.pi * t / 24) + lively * np.convolve(rng.standard_normal(rows + 4), np.ones(5) / 3, "valid")
    own = np.stack([np.convolve(rng.standard_normal(rows + 9), np.ones(10) / 10, "valid") for _ in range(3)], 1)
    x: np.ndarray = load[:, None] * [1.0, -0.8, 0.6] + own + 0.1 * rng.standard_normal((rows, 3))
    return x


def panel(words: str, part: Part, truth: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The first tag of a window: truth, and what is made of its gap by the quantile head."""
    band = np.zeros((3, *truth.shape))

    def take(at: int, answer: np.ndarray) -> None:
        band[:, at : at + answer.shape[1]] = in_units(answer, part.calibration)

    z = standardise(np.where(missing, np.nan, truth), part.calibration)
    drive(impute(part.calibration, part.network, z, Way(ENCODER, (0.05, 0.5, 0.95)), 0, 0, take), lambda problem: problem.x)
    image = np.full((_HIGH, _WIDE, 3), PAPER, np.uint8)
    low, high = min(truth[:, 0].min(), band[0, :, 0].min()) - 0.3, max(truth[:, 0].max(), band[2, :, 0].max()) + 0.3

    def points(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        x, y = 10 + rows * (_WIDE - 20) / (LENGTH - 1), _HIGH - 8 - (values - low) / (high - low) * (_HIGH - 44)
        return np.stack([x, y], 1).round().astype(np.int32)

    rows = np.flatnonzero(missing[:, 0])
    edge = np.concatenate([points(rows, band[0, rows, 0]), points(rows, band[2, rows, 0])[::-1]])
    cv2.fillPoly(image, [edge], BAND)
    cv2.polylines(image, [points(np.arange(LENGTH), truth[:, 0])], False, TRUTH, 2, cv2.LINE_AA)
    cv2.polylines(image, [points(rows, band[1, rows, 0])], False, MEDIAN, 2, cv2.LINE_AA)
    text(image, words, (10, 20), 0.48, INK, 1)
    return image


def main() -> None:
    history, window = plant(2400, 1), plant(24 * 30 + LENGTH, 2)[-LENGTH:]
    part = learn([history], ENCODER)[0]
    block, silent = np.zeros((2, LENGTH, 3), bool)
    block[12:36, 0] = True
    block[20:30] = True
    silent[:, 0] = True
    own, none = np.where(block, np.nan, window), Response.none(3)
    alone = Part(np.arange(3), calibrate([own]), none, none)
    moved = window + [2.5, 0.0, 0.0]
    turned = window * [1.0, -1.0, -1.0]
    rows = [
        panel("24 rows lost, all tags silent for 10 of them: calibrated from history", part, window, block),
        panel("the same from the window's own 48 rows alone: wide, and the cycle is not known", alone, window, block),
        panel(
            "fails: a silent tag after its zero was moved; nothing tells, the band is sure of the old level",
            part,
            moved,
            silent,
        ),
        panel("fails: a silent tag after what follows what has changed", part, turned, silent),
    ]
    legend = np.full((26, _WIDE, 3), PAPER, np.uint8)
    text(legend, "grey: truth   red: median   pink: 5 - 95 %", (10, 18), 0.45, GREY, 1)
    save(Path(sys.argv[1]), np.vstack([*rows, legend]))


if __name__ == "__main__":
    main()
