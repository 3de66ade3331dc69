"""The tree as a JSON Schema (draft 2020-12), from which editors complete and check a configuration.

msgspec makes it; what only our reader knows is added: unknown keys are refused, durations are texts too, and a section
with nothing written in it is its defaults.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .tree import Config
from .typed import DURATION_PATTERN

ID = "urn:denoised:config"


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    tree = msgspec.json.schema(Config)
    parts = tree["$defs"]
    root = parts.pop("Config")
    for part in (root, *parts.values()):
        part["additionalProperties"] = False
        part["description"] = re.sub(r"[`*]", "", part["description"])
    _as_read([root, parts])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        **root,
        "title": "Configuration of denoised",
        "$defs": parts,
    }


def _as_read(value: Any) -> None:
    """Durations, which msgspec knows as the numbers they become, and sections that may be empty."""
    if isinstance(value, dict):
        if value.get("pattern") == DURATION_PATTERN:
            value |= {"type": ["string", "number"], "minimum": 0}
        if value.get("type") == "object" and not value.get("required"):
            value["type"] = ["object", "null"]
        if isinstance(value.get("default"), tuple):
            value["default"] = list(value["default"])
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _as_read(below)
