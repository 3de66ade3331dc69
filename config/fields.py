"""The types that options of the tree share: topics, names, paths, the MQTT version. Each says in words what it takes."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from .typed import Parsed, show

PATH = "path"
DOT_PATH = "path where it begins with ./ or ../"
"""Mark a path of a file or folder; a relative one counts from the folder of the configuration file it stands in."""


def topic_name(value: Any) -> str:
    """A topic to publish to or of one sender."""
    return _topic(value, "a topic", wildcards=False)


def topic_filter(value: Any) -> str:
    """A topic to subscribe to (MQTT 5, section 4.7.1)."""
    return _topic(value, "a topic filter", wildcards=True)


def _topic(value: Any, what: str, wildcards: bool) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 1024 or "\0" in value:
        raise ValueError(f"expected {what} of 1 to 1024 characters such as plant/line1/photo, found {show(value)}")
    if not wildcards and ("+" in value or "#" in value):
        raise ValueError(f"expected {what} without + and #, found {show(value)}")
    levels = value.split("/")
    if "#" in "".join(levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise ValueError(f"'#' may stand only alone in the last level of {what}, found {show(value)}")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(f"'+' must stand alone in its level of {what}, found {show(value)}")
    return value


def mqtt_version(value: Any) -> int | str:
    """5 as a number or text (3.1.1 is text to YAML)."""
    if value not in (5, "5", "3.1.1") or isinstance(value, bool):
        raise ValueError(f"expected 5 or 3.1.1, found {show(value)}")
    return "3.1.1" if value == "3.1.1" else 5


_WORD = "1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit"

Port = Annotated[int, Meta(ge=1, le=65535, description="TCP port of the broker")]
TopicName = Annotated[
    str,
    Parsed(topic_name),
    Meta(min_length=1, max_length=1024, pattern=r"^[^+#\x00]+$", description="MQTT topic, without + and #"),
]
TopicFilter = Annotated[
    str,
    Parsed(topic_filter),
    Meta(
        min_length=1,
        max_length=1024,
        pattern=r"^([^+#\x00/]*|\+)(/([^+#\x00/]*|\+))*(/#)?$|^#$",
        description="MQTT topic filter: + is any one level, # all that follow",
    ),
]
TopicLevel = Annotated[
    str,
    Meta(pattern=r"^[^+#/\x00]{1,64}$", extra={"expected": "1 to 64 characters without / + #, as it becomes part of a topic"}),
]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", extra={"expected": _WORD})]
Protocol = Annotated[int | str, Parsed(mqtt_version), Meta(extra_json_schema={"enum": [5, "5", "3.1.1"]})]
JobId = Annotated[
    str,
    Meta(
        pattern=r"^(\$\..+|[A-Za-z0-9._-]{1,64})$",
        extra={"expected": "a field path such as $.part_id, or 1 to 64 of A-Z a-z 0-9 . _ -"},
    ),
]
Hours = Annotated[
    str,
    Meta(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
        extra={"expected": "times of day from-to such as 22:00-06:00"},
    ),
]
FilePath = Annotated[str, PATH, Meta(min_length=1)]
