"""From a plant topic's payload to a job request: conditions and values by field path. Pure."""

from __future__ import annotations

import re
from typing import Any

from ...config.refusal import Refusal

_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5.0, section 4.7: `+` is one level, `#` the rest; wildcards do not match topics that begin with $."""
    if topic.startswith("$") and topic_filter[:1] in "+#":
        return False
    wanted, have = topic_filter.split("/"), topic.split("/")
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(have) or level not in ("+", have[i]):
            return False
    return len(wanted) == len(have)


def at(payload: Any, path: str) -> Any:
    """The value at a field path such as `part.codes[0]`; KeyError where there is none."""
    value = payload
    for key, index in _PART.findall(path):
        try:
            value = value[int(index)] if index else value[key]
        except (TypeError, KeyError, IndexError):
            raise KeyError(path) from None
    return value


def fires(when: Any, payload: Any) -> bool:
    """Whether the condition (a `Condition` or None) holds; a missing field never does. True and 1 are different answers."""
    if when is None:
        return True
    try:
        found = at(payload, when.field)
    except KeyError:
        return False
    if isinstance(found, bool) != isinstance(when.equals, bool):
        return False
    return bool(found == when.equals)


def fill(template: Any, payload: Any) -> Any:
    """The template with every text `$.path` replaced by the payload's value there; `Refusal` names what is missing."""
    if isinstance(template, str) and template.startswith("$."):
        try:
            return at(payload, template[2:])
        except KeyError:
            raise Refusal("bad-request", f"the trigger's payload has no field '{template[2:]}'", template[2:]) from None
    if isinstance(template, dict):
        return {k: fill(v, payload) for k, v in template.items()}
    if isinstance(template, (list, tuple)):
        return [fill(v, payload) for v in template]
    return template


def request(trigger: Any, payload: Any) -> dict[str, Any]:
    """The request that a trigger (a `Trigger` of the config) makes of a payload."""
    out: dict[str, Any] = {"params": fill(trigger.params, payload), "priority": trigger.priority, "deliver": trigger.deliver}
    if trigger.id is not None:
        out["id"] = str(fill(trigger.id, payload))
    if trigger.deadline is not None:
        out["deadline_ms"] = max(1, round(trigger.deadline * 1000))
    if trigger.quality is not None:
        out["quality"] = trigger.quality
    if trigger.anytime:
        out["anytime"] = True
    return out
