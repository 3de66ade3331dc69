"""The tree as a JSON Schema (draft 2020-12), from which editors complete and check a configuration.

msgspec makes it; what only our reader knows is added: unknown keys are refused, and durations are texts too.
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
    _durations_are_texts(root)
    _durations_are_texts(parts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        **root,
        "title": "Configuration of denoised",
        "$defs": parts,
    }


def _durations_are_texts(value: Any) -> None:
    """msgspec knows a duration as the number of seconds that it becomes."""
    if isinstance(value, dict):
        if value.get("pattern") == DURATION_PATTERN:
            value["type"] = ["string", "number"]
            value["minimum"] = 0
        for below in value.values():
            _durations_are_texts(below)
    elif isinstance(value, list):
        for below in value:
            _durations_are_texts(below)
