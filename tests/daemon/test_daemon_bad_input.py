"""Every field of a request wrong in every way, to one real daemon with the shipped models: each is answered, none disturbs."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from denoised.engines.bundle import SHIPPED

DEFECTS, SENSORS = "defect-synthesis", "sensor-imputation"
PATIENCE = 60.0
WIDTH, HEIGHT = 160, 128

if len(list(SHIPPED.glob("*/SHA256SUMS"))) < 2:
    pytest.skip(f"the shipped models are not in {SHIPPED}", allow_module_level=True)


@dataclasses.dataclass(frozen=True)
class Case:
    """One bad request, and how it must be answered; `says` stands in the message."""

    name: str
    kind: str
    request: Any
    code: str
    field: str | None
    says: str = ""
    properties: dict[str, Any] = dataclasses.field(default_factory=dict)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """The header of a PNG of any size and next to no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def surface(width: int = WIDTH, height: int = HEIGHT, channels: int = 1) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(140, 170, shape, np.uint8)


GOOD_PNG, GOOD_JPEG = encoded(surface()), encoded(surface(), ".jpg")
JPEG_BOMB = bytes.fromhex("ffd8ffc0000b08") + struct.pack(">HH", 12000, 12000) + bytes.fromhex("01011100ffd9")
BMP_BOMB = b"BM" + bytes(16) + struct.pack("<ii", 12000, -12000) + bytes(40)
TIFF_BOMB = b"II*\0" + struct.pack("<IHHHIIHHII", 8, 2, 256, 4, 1, 12000, 257, 4, 1, 12000) + bytes(8)
DAMAGED_PNG = GOOD_PNG[:2000] + bytes(64) + GOOD_PNG[2064:]
HOLLOW_PNG = png(WIDTH, HEIGHT)  # a thousand pixels where the header says twenty thousand


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(data: bytes) -> dict[str, Any]:
    return {"params": {"image": {"data": b64(data)}}}


def defects(**params: Any) -> dict[str, Any]:
    return {"params": {"image": {"path": "good.png"}, **params}}


def image(**image: Any) -> dict[str, Any]:
    return {"params": {"image": image}}


def region(**region: Any) -> dict[str, Any]:
    return defects(region=region)


def sensors(**params: Any) -> dict[str, Any]:
    return {"params": {"tags": ["a", "b"], "values": [[1.0, 2.0], [None, 3.0], [2.0, 4.0]], **params}}


def envelope(**fields: Any) -> dict[str, Any]:
    return {**sensors(), **fields}


def raw(params: str) -> bytes:
    """A sensor request with params that no JSON writer would write."""
    return b'{"params": {"tags": ["a"], "values": ' + params.encode() + b"}}"


BAD = "bad-request"

ENVELOPE = [
    Case("empty", SENSORS, b"", BAD, None, "not JSON"),
    Case("blank", SENSORS, b"  \n", BAD, None, "not JSON"),
    Case("not-json", SENSORS, b"make me a defect", BAD, None, "not JSON"),
    Case("truncated-json", SENSORS, b'{"id": "t", "params": {"tags": ["a"', BAD, None, "not JSON"),
    Case("two-documents", SENSORS, b"{}{}", BAD, None, "not JSON"),
    Case("byte-order-mark", SENSORS, b"\xef\xbb\xbf{}", BAD, None, "not JSON"),
    Case("not-utf8", SENSORS, b'{"id": "\xff\xfe"}', BAD, None, "UTF-8"),
    Case("utf16", SENSORS, '{"id": "x"}'.encode("utf-16"), BAD, None),
    Case("lone-surrogate", SENSORS, b'{"id": "\\ud800"}', BAD, None),
    Case("nul-bytes", SENSORS, bytes(100), BAD, None, "not JSON"),
    Case("deep", SENSORS, b"[" * 100_000 + b"]" * 100_000, BAD, None, "not JSON"),
    Case("unclosed-deep", SENSORS, b'{"params":' * 50_000, BAD, None, "not JSON"),
    Case("deep-below-the-limit", SENSORS, b'{"params": ' + b"[" * 900 + b"]" * 900 + b"}", BAD, "params"),
    Case("deep-unknown-field", SENSORS, b'{"params": {"x": ' + b"[" * 900 + b"]" * 900 + b"}}", BAD, "params.x"),
    Case("list", SENSORS, [], BAD, None, "expected a mapping"),
    Case("number", SENSORS, 7, BAD, None, "expected a mapping"),
    Case("text", SENSORS, "run", BAD, None, "expected a mapping"),
    Case("null", SENSORS, None, BAD, None, "expected a mapping"),
    Case("20-mb", DEFECTS, picture(bytes(15_000_000)), "too-large", None, "send a path"),
    Case("no-fields", SENSORS, {}, BAD, "params", "missing"),
    Case("params-null", SENSORS, {"params": None}, BAD, "params"),
    Case("params-list", SENSORS, {"params": [1]}, BAD, "params"),
    Case("params-text", SENSORS, {"params": "x"}, BAD, "params"),
    Case("unknown-field", SENSORS, envelope(priorty=1), BAD, "priorty", "did you mean 'priority'"),
    Case("unknown-empty-field", SENSORS, {**envelope(), "": 1}, BAD, None, "unknown field ''"),
    Case("unknown-nasty-field", SENSORS, {**envelope(), "a\nb" * 999: 1}, BAD, ("a\nb" * 999)[:64]),
    Case("id-number", SENSORS, envelope(id=7), BAD, "id"),
    Case("id-empty", SENSORS, envelope(id=""), BAD, "id"),
    Case("id-slash", SENSORS, envelope(id="a/b"), BAD, "id"),
    Case("id-wildcard", SENSORS, envelope(id="#"), BAD, "id"),
    Case("id-space", SENSORS, envelope(id="a b"), BAD, "id"),
    Case("id-line-break", SENSORS, envelope(id="a\n"), BAD, "id"),
    Case("id-letter-beyond-ascii", SENSORS, envelope(id="Prüfung"), BAD, "id"),
    Case("id-too-long", SENSORS, envelope(id="x" * 65), BAD, "id"),
    Case("id-list", SENSORS, envelope(id=["x"]), BAD, "id"),
    Case("priority-high", SENSORS, envelope(priority=10), BAD, "priority"),
    Case("priority-negative", SENSORS, envelope(priority=-1), BAD, "priority"),
    Case("priority-fraction", SENSORS, envelope(priority=1.5), BAD, "priority"),
    Case("priority-bool", SENSORS, envelope(priority=True), BAD, "priority"),
    Case("priority-text", SENSORS, envelope(priority="9"), BAD, "priority"),
    Case("deadline-zero", SENSORS, envelope(deadline_ms=0), BAD, "deadline_ms"),
    Case("deadline-negative", SENSORS, envelope(deadline_ms=-5), BAD, "deadline_ms"),
    Case("deadline-huge", SENSORS, envelope(deadline_ms=10**13), BAD, "deadline_ms"),
    Case("deadline-text", SENSORS, envelope(deadline_ms="1s"), BAD, "deadline_ms"),
    Case("deadline-misspelt", SENSORS, envelope(deadline=5), BAD, "deadline", "did you mean 'deadline_ms'"),
    Case("seed-negative", SENSORS, envelope(seed=-1), BAD, "seed"),
    Case("seed-huge", SENSORS, envelope(seed=2**63), BAD, "seed"),
    Case("seed-endless", SENSORS, b'{"seed": 1' + b"0" * 4000 + b', "params": {}}', BAD, "seed"),
    Case("seed-fraction", SENSORS, envelope(seed=0.5), BAD, "seed"),
    Case("seed-text", SENSORS, envelope(seed="random"), BAD, "seed"),
    Case("deliver", SENSORS, envelope(deliver="mail"), BAD, "deliver", "'file', 'mqtt'"),
    Case("deliver-number", SENSORS, envelope(deliver=1), BAD, "deliver"),
    Case("kind", "defect-syntesis", defects(), "unknown-kind", "kind", "did you mean 'defect-synthesis'"),
    Case("kind-empty", "", defects(), "unknown-kind", "kind"),
    Case("kind-long", "k" * 5000, defects(), "unknown-kind", "kind"),
    Case("kind-beyond-ascii", "fehlerbild-ü", defects(), "unknown-kind", "kind"),
    Case("retained", SENSORS, sensors(), BAD, "retain", "retain 0", {"retain": True}),
]

PICTURES = [
    Case("no-image", DEFECTS, {"params": {}}, BAD, "params.image", "missing"),
    Case("image-null", DEFECTS, defects(image=None), BAD, "params.image"),
    Case("image-text", DEFECTS, defects(image="good.png"), BAD, "params.image", "path, data, camera"),
    Case("image-empty", DEFECTS, image(), BAD, "params.image", "exactly one of"),
    Case("image-two-sources", DEFECTS, image(path="good.png", camera="line1"), BAD, "params.image", "exactly one of"),
    Case("image-misspelt", DEFECTS, image(pth="good.png"), BAD, "params.image.pth", "did you mean 'path'"),
    Case("path-number", DEFECTS, image(path=5), BAD, "params.image.path"),
    Case("path-empty", DEFECTS, image(path=""), BAD, "params.image.path"),
    Case("path-endless", DEFECTS, image(path="x/" * 3000), BAD, "params.image.path"),
    *(
        Case(f"path-{name}", DEFECTS, image(path=path), "unknown-input", "params.image.path")
        for name, path in {
            "none": "no-such.png", "up": "../secret.png", "up-and-back": "../../../../../../etc/passwd",
            "hidden-up": "sub/../../secret.png", "absolute": "/etc/passwd", "absolute-device": "/dev/zero",
            "folder": "sub", "dot": ".", "link-out": "link-out.png", "link-loop": "loop",
            "link-device": "zero", "link-folder-out": "out/secret.png", "fifo": "fifo", "nul": "good.png\0.jpg",
            "long-name": "n" * 300, "long": "d/" * 2040 + "x", "line-break": "good.png\n", "url": "http://127.0.0.1/x.png",
            "proc": "/proc/self/mem", "home": "~/x.png", "wildcard": "*.png",
        }.items()
    ),
    Case("path-unreadable", DEFECTS, image(path="mem"), "input", "params.image.path", "cannot be read"),
    Case("file-empty", DEFECTS, image(path="empty.png"), "input", "params.image.path", "not a picture"),
    Case("file-text", DEFECTS, image(path="text.png"), "input", "params.image.path", "not a picture"),
    Case("file-huge", DEFECTS, image(path="huge.png"), "too-large", "params.image.path", "bytes"),
    Case("data-number", DEFECTS, image(data=5), BAD, "params.image.data"),
    Case("data-empty", DEFECTS, image(data=""), BAD, "params.image.data"),
    Case("data-not-base64", DEFECTS, image(data="%%%%"), BAD, "params.image.data", "base64"),
    Case("data-cut-base64", DEFECTS, image(data=b64(GOOD_PNG)[:-3] + "="), BAD, "params.image.data", "base64"),
    Case("data-url", DEFECTS, image(data="data:image/png;base64," + b64(GOOD_PNG)), BAD, "params.image.data", "base64"),
    Case("data-beyond-ascii", DEFECTS, image(data="äöü="), BAD, "params.image.data", "base64"),
    Case("data-only-padding", DEFECTS, image(data="===="), BAD, "params.image.data", "base64"),
    *(
        Case(f"data-{name}", DEFECTS, picture(data), "input", "params.image.data", says)
        for name, data, says in [
            ("text", b"hello", "not a picture"), ("zeros", bytes(5_000_000), "not a picture"),
            ("gif", b"GIF89a" + bytes(100), "not a picture"), ("signature-only", GOOD_PNG[:8], "not a picture"),
            ("png-cut", GOOD_PNG[: len(GOOD_PNG) // 2], "truncated"), ("png-header-only", GOOD_PNG[:33], "truncated"),
            ("png-damaged", DAMAGED_PNG, "damaged"), ("png-hollow", HOLLOW_PNG, "damaged"), ("png-zero", png(0, 10), ""),
            ("jpeg-cut", GOOD_JPEG[: len(GOOD_JPEG) // 2], "truncated"), ("jpeg-mark", b"\xff\xd8\xff", "not a picture"),
            ("1x1", encoded(surface(1, 1)), "at least 16 x 16"), ("15-wide", encoded(surface(15, 200)), "at least 16 x 16"),
            ("float-tiff", encoded(surface().astype(np.float32), ".tiff"), "8 or 16 bits"),
        ]
    ),
    *(
        Case(f"bomb-{name}", DEFECTS, picture(data), "too-large", "params.image.data", "megapixels")
        for name, data in {
            "png": png(12000, 12000), "jpeg": JPEG_BOMB, "bmp": BMP_BOMB, "tiff": TIFF_BOMB,
            "largest-png": png(2**31 - 1, 2**31 - 1), "one-line": png(100_000_000, 1),
        }.items()
    ),
    Case("bomb-path", DEFECTS, image(path="bomb.png"), "too-large", "params.image.path", "megapixels"),
    Case("camera-unknown", DEFECTS, image(camera="line11"), "unknown-input", "params.image.camera", "did you mean 'line1'"),
    Case("camera-number", DEFECTS, image(camera=0), BAD, "params.image.camera"),
    Case("camera-empty", DEFECTS, image(camera=""), BAD, "params.image.camera"),
    Case("camera-dead", DEFECTS, image(camera="dead"), "input", "params.image.camera"),
]  # fmt: skip

DEFECT_PARAMS = [
    Case("class-unknown", DEFECTS, defects(defect="blowhol"), BAD, "params.defect", "did you mean 'blowhole'"),
    Case("class-number", DEFECTS, defects(defect=1), BAD, "params.defect"),
    Case("class-empty", DEFECTS, defects(defect=""), BAD, "params.defect"),
    Case("class-long", DEFECTS, defects(defect="x" * 1000), BAD, "params.defect"),
    Case("model-unknown", DEFECTS, defects(model="surface-defect"), "unknown-model", "params.model", "did you mean"),
    Case("model-of-the-other-kind", DEFECTS, defects(model="plant-imputer"), "unknown-model", "params.model"),
    Case("model-path", DEFECTS, defects(model="../../etc"), "unknown-model", "params.model"),
    Case("model-number", DEFECTS, defects(model=1), BAD, "params.model"),
    Case("param-unknown", DEFECTS, defects(defekt="any"), BAD, "params.defekt", "did you mean 'defect'"),
    *(
        Case(f"count-{name}", DEFECTS, defects(count=count), BAD, "params.count")
        for name, count in {"zero": 0, "high": 1001, "text": "3", "half": 1.5, "on": True, "null": None, "big": 10**30}.items()
    ),
    *(
        Case(f"severity-{name}", DEFECTS, defects(severity=severity), BAD, "params.severity")
        for name, severity in {"low": -1, "high": 2, "text": "0.5", "list": [0.5], "bool": True, "huge": 1e308}.items()
    ),
    Case("severity-nan", DEFECTS, b'{"params": {"image": {"path": "good.png"}, "severity": NaN}}', BAD, None, "not JSON"),
    Case("severity-infinite", DEFECTS, b'{"params": {"image": {"path": "a.png"}, "severity": 1e999}}', BAD, None, "not JSON"),
    Case("region-word", DEFECTS, defects(region="center"), BAD, "params.region", "'auto'"),
    Case("region-number", DEFECTS, defects(region=5), BAD, "params.region"),
    Case("region-null", DEFECTS, defects(region=None), BAD, "params.region"),
    Case("region-empty", DEFECTS, region(), BAD, "params.region", "exactly one of"),
    Case("region-two", DEFECTS, region(box=[1, 1, 9, 9], polygon=[[0, 0], [9, 0], [0, 9]]), BAD, "params.region", "exactly"),
    Case("region-misspelt", DEFECTS, region(bbox=[1, 1, 9, 9]), BAD, "params.region.bbox", "did you mean 'box'"),
    *(
        Case(f"box-{name}", DEFECTS, region(box=box), BAD, f"params.region.box{item}")
        for name, box, item in [
            ("negative", [-1, 0, 9, 9], ""), ("no-width", [1, 1, 0, 9], ""), ("negative-height", [1, 1, 9, -9], ""),
            ("huge", [0, 0, 10**9, 9], ""), ("beyond-int", [0, 0, 9, 10**30], ""), ("short", [1, 2, 3], ""),
            ("long", [1, 2, 3, 4, 5], ""), ("float", [1.5, 2, 9, 9], "[0]"), ("text", [1, "2", 9, 9], "[1]"),
            ("null-item", [1, 2, None, 9], "[2]"), ("words", "1,2,9,9", ""), ("nested", [[1, 2], [9, 9], 1, 1], "[0]"),
            ("object", {"x": 1}, ""), ("empty", [], ""),
            ("outside", [WIDTH, 0, 9, 9], ""), ("half-outside", [WIDTH - 4, 0, 9, 9], ""), ("below", [0, HEIGHT - 1, 9, 2], ""),
        ]
    ),
    *(
        Case(f"polygon-{name}", DEFECTS, region(polygon=points), BAD, f"params.region.polygon{item}")
        for name, points, item in [
            ("two-points", [[1, 1], [9, 9]], ""), ("no-points", [], ""), ("line", [[1, 1], [5, 5], [9, 9]], ""),
            ("crossing-itself-to-nothing", [[10, 10], [40, 40], [40, 10], [10, 40]], ""), ("one-place", [[5, 5]] * 4, ""),
            ("outside", [[1, 1], [WIDTH + 9, 1], [1, 9]], ""), ("negative", [[-1, 1], [9, 1], [1, 9]], ""),
            ("huge", [[1, 1], [1e300, 1], [1, 9]], ""), ("flat", [1, 1, 9, 1, 1, 9], "[0]"), ("text", "1,1 9,9", ""),
            ("3d", [[1, 1, 1], [9, 1, 1], [1, 9, 1]], "[0]"), ("null-point", [[1, 1], None, [1, 9]], "[1]"),
            ("null-number", [[1, 1], [9, None], [1, 9]], "[1][1]"), ("many", [[i % 90, i % 7] for i in range(10_001)], ""),
            ("between-pixels", [[WIDTH - 0.02, 0], [WIDTH, 0], [WIDTH, HEIGHT], [WIDTH - 0.02, HEIGHT]], ""),
        ]
    ),
    Case("mask-word", DEFECTS, region(mask="mask.png"), BAD, "params.region.mask"),
    Case("mask-nothing", DEFECTS, region(mask={}), BAD, "params.region.mask", "exactly one of"),
    Case("mask-two", DEFECTS, region(mask={"path": "good.png", "data": "aaaa"}), BAD, "params.region.mask"),
    Case("mask-camera", DEFECTS, region(mask={"camera": "line1"}), BAD, "params.region.mask.camera", "unknown field"),
    Case("mask-base64", DEFECTS, region(mask={"data": "%"}), BAD, "params.region.mask.data", "base64"),
    Case("mask-up", DEFECTS, region(mask={"path": "../secret.png"}), "unknown-input", "params.region.mask.path"),
    Case("mask-fifo", DEFECTS, region(mask={"path": "fifo"}), "unknown-input", "params.region.mask.path"),
    Case("mask-not-a-picture", DEFECTS, region(mask={"path": "text.png"}), "input", "params.region.mask.path"),
    Case("mask-unreadable", DEFECTS, region(mask={"path": "mem"}), "input", "params.region.mask.path", "cannot be read"),
    *(
        Case(f"mask-{name}", DEFECTS, region(mask={"data": b64(data)}), code, "params.region.mask.data", says)
        for name, data, code, says in [
            ("other-size", encoded(surface(64, 64)), "input", "one size"),
            ("turned", encoded(surface(HEIGHT, WIDTH)), "input", "one size"),
            ("empty", encoded(np.zeros((HEIGHT, WIDTH), np.uint8)), "input", "empty"),
            ("text", b"no", "input", "not a picture"), ("cut", GOOD_PNG[:500], "input", "truncated"),
            ("bomb", png(12000, 12000), "too-large", "megapixels"),
        ]
    ),
]  # fmt: skip

ROW = [[1.0, 2.0]]
SENSOR_PARAMS = [
    Case("no-tags", SENSORS, {"params": {"values": [[1]]}}, BAD, "params.tags", "missing"),
    Case("no-values", SENSORS, {"params": {"tags": ["a"]}}, BAD, "params.values", "missing"),
    Case("tags-empty", SENSORS, sensors(tags=[]), BAD, "params.tags"),
    Case("tags-text", SENSORS, sensors(tags="a,b"), BAD, "params.tags"),
    Case("tag-number", SENSORS, sensors(tags=["a", 2]), BAD, "params.tags[1]"),
    Case("tag-empty", SENSORS, sensors(tags=["a", ""]), BAD, "params.tags[1]"),
    Case("tag-long", SENSORS, sensors(tags=["a", "b" * 300]), BAD, "params.tags[1]"),
    Case("tag-twice", SENSORS, sensors(tags=["a", "a"]), BAD, "params.tags[1]", "twice"),
    Case("300-tags", SENSORS, sensors(tags=[f"t{i}" for i in range(300)], values=[[1.0] * 300]), BAD, "params.tags"),
    Case("sensor-model-unknown", SENSORS, sensors(model="plant-imputr"), "unknown-model", "params.model", "did you mean"),
    Case("sensor-model-of-the-other-kind", SENSORS, sensors(model="surface-defects"), "unknown-model", "params.model"),
    Case("sensor-model-empty", SENSORS, sensors(model=""), "unknown-model", "params.model"),
    Case("sensor-param-unknown", SENSORS, sensors(quantile=[0.5]), BAD, "params.quantile", "did you mean 'quantiles'"),
    *(
        Case(f"values-{name}", SENSORS, sensors(values=values), BAD, f"params.values{item}")
        for name, values, item in [
            ("no-rows", [], ""), ("text", "1 2 3", ""), ("number", 5, ""), ("null", None, ""), ("object", {"a": [1]}, ""),
            ("flat", [1.0, 2.0], "[0]"), ("one-column-more", [*ROW, [1, 2, 3]], "[1]"), ("ragged", [*ROW, [1]], "[1]"),
            ("empty-row", [[]], "[0]"), ("null-row", [*ROW, None], "[1]"), ("strings", [*ROW, [1, "2"]], "[1][1]"),
            ("bool", [[True, 1.0]], "[0][0]"), ("nested", [*ROW, [[1], 2]], "[1][0]"), ("object-cell", [[{}, 1]], "[0][0]"),
            ("nan-text", [[1, "NaN"]], "[0][1]"), ("all-null", [[None, None]] * 9, ""),
            ("endless-int", [[1, 10**400]], "[0][1]"), ("many-rows", [[1, None]] * 100_001, ""),
        ]
    ),
    Case("values-nan", SENSORS, raw("[[NaN]]"), BAD, None, "not JSON"),
    Case("values-infinite", SENSORS, raw("[[-Infinity]]"), BAD, None, "not JSON"),
    Case("values-1e999", SENSORS, raw("[[1e999]]"), BAD, None, "not JSON"),
    Case("values-hex", SENSORS, raw("[[0x10]]"), BAD, None, "not JSON"),
    Case("values-comma", SENSORS, raw("[[1,]]"), BAD, None, "not JSON"),
    *(
        Case(f"quantiles-{name}", SENSORS, sensors(quantiles=quantiles), BAD, f"params.quantiles{item}")
        for name, quantiles, item in [
            ("zero", [0], "[0]"), ("one", [0.5, 1], "[1]"), ("high", [1.5], "[0]"), ("negative", [-0.1], "[0]"),
            ("empty", [], ""), ("text", ["0.5"], "[0]"), ("twice", [0.5, 0.5], ""), ("number", 0.5, ""), ("null", None, ""),
            ("many", [i / 100 for i in range(1, 40)], ""), ("percent", [5, 50, 95], "[0]"),
        ]
    ),
    *(
        Case(f"{name}-{i}", SENSORS, sensors(**{name: value}), BAD, f"params.{name}")
        for name, values in {
            "samples": [0, -1, 100_000, 1.5, "32", True, 10**30, None],
            "period_ms": [0, -1, 1e13, "1s", True, [1]],
            "start": ["now", "2026-11-22", "", 5, "2026-11-22T10:15:30", "2026-13-45T10:15:30Z", "2026-11-22T25:00:00Z",
                      "2026-11-22T10:15:30Z\n", "٢٠٢٦-11-22T10:15:30Z"],
        }.items()
        for i, value in enumerate(values)
    ),
]  # fmt: skip

CASES = [*ENVELOPE, *PICTURES, *DEFECT_PARAMS, *SENSOR_PARAMS]
assert len({case.name for case in CASES}) == len(CASES)
GOOD = {
    DEFECTS: {"seed": 3, "params": {"image": {"path": "good.png"}, "count": 2, "region": {"box": [20, 20, 60, 60]}}},
    SENSORS: {"seed": 3, **sensors(tags=["b", "a"])},
}


def fill_inputs(folder: Path) -> None:
    inputs = folder / "inputs"
    (inputs / "sub").mkdir(parents=True)
    (inputs / "good.png").write_bytes(GOOD_PNG)
    (folder / "secret.png").write_bytes(GOOD_PNG)
    (inputs / "link-out.png").symlink_to(folder / "secret.png")
    (inputs / "out").symlink_to(folder)
    (inputs / "zero").symlink_to("/dev/zero")
    (inputs / "loop").symlink_to(inputs / "loop")
    os.mkfifo(inputs / "fifo")
    (inputs / "empty.png").touch()
    (inputs / "text.png").write_text("not a picture at all")
    (inputs / "bomb.png").write_bytes(png(12000, 12000))
    with (inputs / "huge.png").open("wb") as file:
        file.write(GOOD_PNG)
        file.truncate(200 << 30)  # sparse


class Answers:
    """The daemon after it has been sent everything, and what it said."""

    def __init__(self, daemon: Any):
        self.daemon = daemon
        daemon.wait_for("telemetry", lambda v: v["worker"]["ready"])
        self.workers = daemon.children("denoised-worker")
        self.memory_mb = [peak_mb(pid) for pid in self.workers]
        self.final: dict[str, list[dict[str, Any]]] = {}

    def send(self, case: Case) -> None:
        request = case.request
        if isinstance(request, dict) and "id" not in request:
            request = {"id": f"id-{case.name}", **request}
        payload = request if isinstance(request, bytes) else json.dumps(request).encode()
        to = f"{self.daemon.base}/answers/{case.name}"
        self.daemon.submit(case.kind, payload, response_topic=to, correlation=case.name.encode(), **case.properties)

    def good(self, when: str) -> None:
        for kind, request in GOOD.items():
            self.daemon.submit(kind, {"id": f"{when}-{kind}", **request})

    def gather(self, wanted: set[str]) -> None:
        """Until each of `wanted` has its final reply."""
        until = time.monotonic() + PATIENCE
        at = 0
        while not wanted <= set(self.final):
            assert time.monotonic() < until, (sorted(wanted - set(self.final)), self.daemon.logged()[-3000:])
            self.daemon.look(0.1)
            for topic, correlation, value in self.daemon.replies[at:]:
                if topic.startswith("answers/") and value["state"] not in ("accepted", "running", "paused"):
                    assert correlation == topic.removeprefix("answers/").encode()
                    self.final.setdefault(topic.removeprefix("answers/"), []).append(value)
            at = len(self.daemon.replies)


def peak_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.fixture(scope="module")
def answers(make_shared_daemon, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    fill_inputs(folder)
    frames = folder / "frames"
    frames.mkdir()
    daemon = make_shared_daemon(
        start=False,
        inputs={"folders": [str(folder / "inputs"), f"/proc/{os.getpid()}"]},
        cameras={"line1": {"source": str(frames)}, "dead": {"source": str(folder / "no-such-device")}},
        engine={"threads": 1},
        models={"dir": str(folder / "models")},
    )
    daemon.start()
    daemon.submit(DEFECTS, {"id": "first", **GOOD[DEFECTS]})
    daemon.submit(SENSORS, {"id": "first-too", **GOOD[SENSORS]})
    daemon.result("first"), daemon.result("first-too")
    told = Answers(daemon)
    told.good("before")
    for i, case in enumerate(CASES):
        told.send(case)
        if i == len(CASES) // 2:
            told.good("amid")
    told.good("after")
    told.gather({case.name for case in CASES})
    return told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_answered_with_code_and_field(answers, case):
    (reply,) = answers.final[case.name]
    assert reply["state"] == "failed"
    error = reply["error"]
    assert (error["code"], error.get("field")) == (case.code, case.field), error["message"]
    assert case.says in error["message"]
    assert 10 < len(error["message"]) < 1500


def test_good_jobs_before_amid_and_after_them_are_done_and_alike(answers):
    for kind in GOOD:
        results = [answers.daemon.result(f"{when}-{kind}") for when in ("before", "amid", "after")]
        assert [r["state"] for r in results] == ["done"] * 3
        assert len({json.dumps(r["output"]) for r in results}) == 1


def test_each_is_answered_once_on_its_own_topic_or_that_of_the_refused(answers):
    answers.good("last")
    for kind in GOOD:
        answers.daemon.result(f"last-{kind}")
    results = [
        topic.split("/")[1] for topic, _ in answers.daemon.seen if topic.startswith("jobs/") and topic.endswith("/result")
    ]
    assert len(results) == len(set(results))
    sent = {f"id-{case.name}" for case in CASES}
    good = {f"{when}-{kind}" for when in ("before", "amid", "after", "last") for kind in GOOD} | {"first", "first-too"}
    assert set(results) <= sent | good


def test_the_same_worker_has_done_it_all_without_growing(answers):
    assert answers.daemon.process.poll() is None
    assert answers.daemon.children("denoised-worker") == answers.workers
    assert peak_mb(answers.workers[0]) < answers.memory_mb[0] + 150


def test_nothing_is_left_behind(answers):
    state = answers.daemon.folder / "state"
    kept = {path.name for path in (state / "artifacts").iterdir()}
    assert {name.partition("-")[0] for name in kept} <= {"first", "before", "amid", "after", "last"}
    assert list((state / "frames").glob("id-*")) == []


@pytest.mark.parametrize("job_id", [".", "..", "...", ".id.part", "-rf", "id-x.part", "refused", "x" * 64])
def test_a_lawful_id_is_no_path_out_of_the_artifacts(answers, job_id):
    daemon, artifacts = answers.daemon, answers.daemon.folder / "state" / "artifacts"
    before = {path for path in (daemon.folder / "state").rglob("*") if path.name != "spool.db-shm"}
    daemon.submit(DEFECTS, {"id": job_id, **GOOD[DEFECTS]})
    result = daemon.result(job_id)
    assert result["state"] == "done"
    assert before <= set((daemon.folder / "state").rglob("*"))
    for artifact in result["artifacts"]:
        assert Path(os.path.normpath(artifact["path"])).parent.parent == artifacts
        assert len(Path(artifact["path"]).read_bytes()) == artifact["bytes"]


@pytest.mark.parametrize(
    "topic", ["status", "telemetry", "jobs/victim/result", "jobs/victim/cancel", "jobs/toy/submit", "sensors/a/b"]
)
def test_a_reply_is_not_sent_to_topics_that_are_the_daemons_own(answers, topic):
    daemon = answers.daemon
    job_id = f"forged-{topic.replace('/', '-')}"
    daemon.submit(SENSORS, {"id": job_id, "params": {}}, response_topic=f"{daemon.base}/{topic}", correlation=b"forged")
    daemon.submit(
        SENSORS, {"id": job_id + "-good", **sensors()}, response_topic=f"{daemon.base}/{topic}", correlation=b"forged"
    )
    assert daemon.result(job_id)["error"]["field"] == "params.tags"
    assert daemon.result(job_id + "-good")["state"] == "done"
    own = f"jobs/{SENSORS}/submit"
    assert [said for said in daemon.replies if said[1] == b"forged" and said[0] != own] == []


def test_messages_that_mean_nothing_to_us_change_nothing(answers):
    daemon = answers.daemon
    for topic in (
        "",
        "jobs",
        "jobs/submit",
        "jobs/a/b/submit",
        "jobs/x/cancel",
        "jobs//cancel",
        "jobs/.././cancel",
        "jobs/x/pause",
    ):
        for payload in (b"", b"\xff\xfe", b"null", b'{"id": "nothing"}', bytes(100_000)):
            daemon.client.publish(f"{daemon.base}/{topic}", payload)
    daemon.client.publish(f"{daemon.base}/jobs/untouched/cancel", b"\x00", retain=True)
    daemon.submit(SENSORS, {"id": "untouched", **sensors()})
    assert daemon.result("untouched")["state"] == "done"
    daemon.client.publish(f"{daemon.base}/jobs/untouched/cancel", b"{}")
    daemon.submit(SENSORS, {"id": "untouched-too", **sensors()})
    assert daemon.result("untouched-too")["state"] == "done"
    assert len(daemon.all("jobs/untouched/result")) == 1


def palette_png() -> bytes:
    """Four colours by number, 64 x 64."""
    rows = b"".join(b"\0" + bytes((x // 16 + y // 16) % 4 for x in range(64)) for y in range(64))
    colours = bytes([90, 80, 70, 120, 110, 100, 150, 140, 130, 180, 170, 160])
    header = struct.pack(">IIBBBBB", 64, 64, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def cmyk_jpeg() -> bytes:
    """64 x 64 of one colour in four components: every block is the two codes '0' (no difference) and '0' (end of block)."""

    def segment(mark: int, data: bytes) -> bytes:
        return b"\xff" + bytes([mark]) + struct.pack(">H", len(data) + 2) + data

    components = b"".join(bytes([c, 0x11, 0]) for c in range(1, 5))
    code = bytes([1, *[0] * 15, 0])  # one code of one bit, for the value 0
    return (
        b"\xff\xd8" + segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, 0])) + segment(0xDB, bytes([0, *[1] * 64]))
        + segment(0xC0, struct.pack(">BHHB", 8, 64, 64, 4) + components)
        + segment(0xC4, b"\x00" + code) + segment(0xC4, b"\x10" + code)
        + segment(0xDA, bytes([4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0])) + bytes(64) + b"\xff\xd9"
    )  # fmt: skip


UNUSUAL = {
    "16-bit": encoded(surface().astype(np.uint16) * 257),
    "16-bit-colour": encoded(surface(channels=3).astype(np.uint16) * 257),
    "bgra": encoded(surface(channels=4)),
    "palette": palette_png(),
    "cmyk-jpeg": cmyk_jpeg(),
    "colour-jpeg": encoded(surface(channels=3), ".jpg"),
    "bmp": encoded(surface(channels=3), ".bmp"),
    "tiff": encoded(surface(), ".tiff"),
    "smallest": encoded(surface(16, 16)),
    "a-line-of-parts": encoded(surface(3000, 16)),
    "black": encoded(surface() * 0),
    "white": encoded(surface() * 0 + 255),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_picture_is_taken_and_comes_back_in_its_own_form(answers, name):
    daemon = answers.daemon
    daemon.submit(DEFECTS, {"id": f"odd-{name}", **picture(UNUSUAL[name])})
    result = daemon.result(f"odd-{name}")
    assert result["state"] == "done", result["error"]
    given = cv2.imdecode(np.frombuffer(UNUSUAL[name], np.uint8), cv2.IMREAD_UNCHANGED)
    path = {artifact["role"]: artifact["path"] for artifact in result["artifacts"]}
    made, mask = (cv2.imread(path[role], cv2.IMREAD_UNCHANGED) for role in ("image", "mask"))
    assert given is not None and made is not None and mask is not None
    assert (made.dtype, made.shape) == (given.dtype, given.shape)
    assert (made[mask == 0] == given[mask == 0]).all()


EXTREMES: dict[str, dict[str, Any]] = {
    "largest-numbers": {"values": [[1.7e308, -1.7e308], [None, 1e308], [-1.7e308, None]]},
    "smallest-numbers": {"values": [[5e-324, 0.0], [None, 2.5e-310], [1e-300, None]]},
    "numbers-beyond-any-register": {"values": [[2**70, -(2**63) - 1], [None, 10**30]]},
    "far-apart": {"values": [[1e300, 1e-300], [None, None], [1.0, -1e300]]},
    "never-changing": {"values": [[5, 5], [None, 5], [5, None]]},
    "one-number": {"values": [[1.0, None]]},
    "nothing-missing": {"values": [[1.0, 2.0]]},
    "quantiles-in-any-order": {"quantiles": [0.95, 0.05, 0.5]},
    "one-sample": {"samples": 1},
    "256-tags": {"tags": [f"t{i}" for i in range(256)], "values": [[1.0] * 255 + [None], [2.0] * 256]},
    "a-tag-of-any-letters": {"tags": ["Ofen/Düse 3 °C", "\u2028#+$\x00"]},
    "outermost-quantiles": {"quantiles": [0.001, 0.999], "samples": 256},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_an_extreme_window_is_answered_with_finite_numbers(answers, name):
    daemon, request = answers.daemon, sensors(**EXTREMES[name])
    daemon.submit(SENSORS, {"id": f"extreme-{name}", **request})
    result = daemon.result(f"extreme-{name}")
    assert result["state"] == "done", result["error"]
    given, output = request["params"]["values"], result["output"]
    assert output["tags"] == request["params"]["tags"]
    for i, row in enumerate(given):
        for k, measured in enumerate(row):
            answer, levels = (
                output["values"][i][k],
                [output["quantiles"][q][i][k] for q in sorted(output["quantiles"], key=float)],
            )
            if measured is not None:
                assert {repr(value) for value in (answer, *levels)} == {repr(measured)}
            assert all(isinstance(value, (int, float)) and abs(value) < float("inf") for value in (answer, *levels))
            assert levels == sorted(levels)
