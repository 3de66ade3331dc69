"""Small files of JSON that survive a power cut: written whole or not at all, and read with tolerance for damage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Durable and whole, or what was there before; `OSError` where the disk does not take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
        f.write("\n")
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, path)
    sync(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in the file; empty where there is none, or it is no use any more."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sync(path: Path) -> None:
    """A file's content, or what was renamed in a folder or deleted from it, stays so."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
