"""Picture files: their size read from the header before anything is decoded, and decoding that refuses instead of guessing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ...config.refusal import Refusal

FORMATS = "PNG, JPEG, BMP or TIFF"


def read_file(path: Path, field: str, max_pixels: int) -> bytes:
    """The file's bytes; refused unread where it is larger than any picture of `max_pixels` (4 channels of 16 bits) can be."""
    most = 8 * max_pixels + (1 << 20)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1) if path.stat().st_size <= most else None
    except OSError as e:
        raise Refusal("input", f"the file cannot be read: {e.strerror}", field) from e
    if data is None or len(data) > most:
        raise Refusal("too-large", f"the file is larger than any picture that is taken here can be ({most} bytes)", field)
    return data


def decode(data: bytes, field: str, max_pixels: int) -> np.ndarray:
    """The picture (H, W) or (H, W, 3 or 4), uint8 or uint16, as stored; `field` is blamed if it is none or too large."""
    size = size_of(data)
    if size is None:
        raise Refusal("input", f"this is not a picture that can be read; expected {FORMATS}, {len(data)} bytes found", field)
    width, height = size
    if width * height > max_pixels:
        limit = max_pixels / 1e6
        raise Refusal("too-large", f"the picture is {width} x {height}; at most {limit:g} megapixels are taken here", field)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != (height, width):
        raise Refusal("input", "the picture is damaged or truncated: its header can be read, its pixels cannot", field)
    if _truncated(data):
        raise Refusal("input", "the picture is truncated: the end of the file is missing", field)
    if image.dtype not in (np.uint8, np.uint16):
        raise Refusal("input", f"expected 8 or 16 bits per channel, found {image.dtype}", field)
    if min(width, height) < 16:
        raise Refusal("input", f"the picture is {width} x {height}; at least 16 x 16 is needed", field)
    return image


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG, JPEG, BMP or TIFF; None where it is none of them."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
            width, height = struct.unpack(">II", data[16:24])
        elif data[:3] == b"\xff\xd8\xff":
            return _jpeg_size(data)
        elif data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
            height = abs(height)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_size(data)
        else:
            return None
    except struct.error:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _truncated(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end mark; OpenCV fills what is missing with grey and says nothing."""
    if data[:4] == b"\x89PNG":
        return b"IEND" not in data
    scan = next((at for marker, at in _jpeg_segments(data) if marker == 0xDA), None) if data[:2] == b"\xff\xd8" else None
    return scan is not None and b"\xff\xd9" not in data[scan:]  # within a scan 0xff never stands before 0xd9


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the first frame header, SOF0 to SOF15 (ITU-T T.81, B.2.2)."""
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return (width, height) if width and height else None
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, where it stands) of every segment up to the first scan; a thumbnail inside one is not looked into."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        yield marker, at
        if marker == 0xDA:
            return
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Tags 256 and 257 of the first directory (TIFF 6.0, section 2)."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[at : at + 2])
    found = {}
    for i in range(count):
        entry = data[at + 2 + 12 * i : at + 14 + 12 * i]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in (256, 257):
            found[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), entry[8 : 10 if kind == 3 else 12])[0]
    width, height = found.get(256, 0), found.get(257, 0)
    return (width, height) if width and height else None


def grey_of(image: np.ndarray) -> np.ndarray:
    """Luminance (H, W) in the picture's own dtype; alpha does not count."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 1:
        return image[:, :, 0]
    if image.shape[2] == 2:
        return np.ascontiguousarray(image[:, :, 0])
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY)


def full_scale(image: np.ndarray) -> float:
    """The largest value that the picture can hold, 255 or 65535."""
    return 65535.0 if image.dtype == np.uint16 else 255.0


def encode(image: np.ndarray) -> bytes:
    """As PNG, the pixels unchanged."""
    done, data = cv2.imencode(".png", image)
    if not done:
        raise Refusal("internal", f"a picture of shape {image.shape} does not become a PNG")
    return bytes(data)
