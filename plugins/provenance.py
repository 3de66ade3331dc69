"""Every synthetic picture says what it is: PNG text fields that any viewer shows, the same facts for the COCO `info` block.

PNG specification (W3C, third edition), section 11.3.3: tEXt chunks hold Latin-1 keyword and text. No wall-clock time is
written, so that equal jobs give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR_END = 8 + 25


def add_text(png: bytes, facts: Mapping[str, str]) -> bytes:
    """`png` with one tEXt chunk per fact, right after the header; the pixels are not touched."""
    if not png.startswith(_SIGNATURE):
        raise ValueError("not a PNG")
    chunks = b"".join(_chunk(f"{key}\0{value}".encode("latin-1", "replace")) for key, value in facts.items())
    return png[:_IHDR_END] + chunks + png[_IHDR_END:]


def read_text(png: bytes) -> dict[str, str]:
    """The tEXt fields of a PNG."""
    out, at = {}, 8
    while at + 8 <= len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        if kind == b"tEXt":
            key, _, value = png[at + 8 : at + 8 + size].partition(b"\0")
            out[key.decode("latin-1")] = value.decode("latin-1")
        at += size + 12
    return out


def _chunk(data: bytes) -> bytes:
    body = b"tEXt" + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
