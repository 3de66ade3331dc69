"""The JSON Schema says what the reader says, as far as a schema can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import denoised.config
import pytest
import yaml
from denoised.config import typed
from denoised.config.schema import schema
from denoised.config.tree import Config
from jsonschema import Draft202012Validator

VALIDATOR = Draft202012Validator(schema())
EXAMPLE = Path(denoised.config.__file__).with_name("denoised.yaml")
TRIGGER = {"topic": "a/+/b/#", "kind": "k"}


def test_it_is_a_schema_and_plain_json() -> None:
    Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


def test_the_shipped_configuration_is_valid_by_it() -> None:
    assert list(VALIDATOR.iter_errors(yaml.safe_load(EXAMPLE.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"mqtt": {"protocol": "3.1.1", "keepalive": "5min", "session_expiry": 60, "password_file": None}},
        {"engine": {"threads": 3}, "queue": {}},
        {"triggers": {"t": {**TRIGGER, "when": {"field": "a", "equals": True}, "deadline": None, "params": {"x": [1]}}}},
        {"sensors": {"s": {"tags": {"a": {"topic": "t", "low": 1}}}}},
    ],
)
def test_what_the_reader_takes_is_valid(plain: dict[str, Any]) -> None:
    typed.read(plain, Config)
    assert list(VALIDATOR.iter_errors(plain)) == []


@pytest.mark.parametrize(
    "plain",
    [
        {"nonsense": 1},
        {"mqtt": {"prot": 1}},
        {"mqtt": {"port": 0}},
        {"mqtt": {"protocol": 4}},
        {"mqtt": {"base_topic": "a/#"}},
        {"mqtt": {"keepalive": "5 parsecs"}},
        {"telemetry": {"period": -1}},
        {"engine": {"threads": "few"}},
        {"cameras": {"a": {}}},
        {"triggers": {"t": {**TRIGGER, "topic": "a/b+"}}},
        {"triggers": {"t": {**TRIGGER, "topic": "a/#/b"}}},
        {"triggers": {"t": {**TRIGGER, "id": "no blanks"}}},
        {"sensors": {"s": {}}},
    ],
)
def test_what_the_reader_refuses_is_invalid(plain: dict[str, Any]) -> None:
    with pytest.raises(typed.Flaws):
        typed.read(plain, Config)
    assert not VALIDATOR.is_valid(plain)


def test_every_option_tells_an_editor_what_it_is_for() -> None:
    tree = schema()
    parts = {"Config": tree, **tree["$defs"]}
    silent = [
        f"{name}.{option}"
        for name, part in parts.items()
        for option, about in part["properties"].items()
        if "description" not in about and name != "Config" and "$ref" not in str(about)
    ]
    assert silent == []
