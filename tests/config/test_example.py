"""config/denoised.yaml, which ships as the gateway's configuration: valid, complete, and true about the defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import denoised.config
import pytest
import yaml
from denoised.config.load import load
from denoised.config.tree import Config
from denoised.config.typed import seconds
from denoised.plugins.kind import load_kinds

EXAMPLE = Path(denoised.config.__file__).with_name("denoised.yaml")
TEXT = EXAMPLE.read_text("utf-8")
WITH_EXAMPLES = re.sub(r"(?m)^( *)#(?=\S)", r"\1", TEXT)
"""Every `#` without a space after it taken away, as the file's own first lines explain."""


def sections(type_: Any) -> Iterator[type]:
    """Every dataclass of the tree."""
    if dataclasses.is_dataclass(type_):
        yield type_  # type: ignore[misc]
        for hint in get_type_hints(type_).values():
            yield from sections(hint)
    for below in get_args(type_):
        yield from sections(below)


def leaves(value: Any, default: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, value written, value of the tree; sections with nothing in them say nothing."""
    for key, below in value.items():
        there = getattr(default, key)
        if isinstance(below, dict):
            yield from leaves(below, there, f"{path}{key}.")
        elif not (below is None and (there == {} or dataclasses.is_dataclass(there))):
            yield f"{path}{key}", below, there


@pytest.fixture
def with_examples(tmp_path: Path) -> Path:
    (tmp_path / "line2.url").write_text("rtsp://viewer:secret@10.0.0.9/stream1\n")
    path = tmp_path / "denoised.yaml"
    path.write_text(WITH_EXAMPLES, "utf-8")
    return path


def test_the_shipped_file_is_the_defaults() -> None:
    assert load(EXAMPLE) == Config()


@pytest.mark.parametrize(("path", "written", "default"), list(leaves(yaml.safe_load(TEXT), Config())))
def test_every_value_written_in_it_is_the_default(path: str, written: Any, default: Any) -> None:
    if isinstance(default, float) and isinstance(written, str):
        written = seconds(written)
    if isinstance(default, tuple):
        written = tuple(written)
    assert written == default


@pytest.mark.parametrize("section", sorted(set(sections(Config)), key=repr), ids=repr)
def test_every_option_stands_in_it(section: type) -> None:
    for option in dataclasses.fields(section):
        assert re.search(rf"(?m)\b{option.name}:", TEXT), option.name


def test_its_examples_are_valid_once_uncommented(with_examples: Path) -> None:
    config = load(with_examples)
    assert config.gateway.id == "gw1" and config.mqtt.tls.key == "/etc/denoised/keys/gw1.key"
    assert config.cameras["line2"].source == "rtsp://viewer:secret@10.0.0.9/stream1"
    assert set(config.sensors["press"].tags) == {"oil_temp", "pressure"}
    assert config.triggers["photo"].reply and config.triggers["photo"].when
    assert {t.kind for t in config.triggers.values()} <= set(load_kinds())
    # What the comments say is taken without the line is what is taken.
    assert (config.artifacts_dir, config.models_dir, config.input_folders) == (
        Config().artifacts_dir,
        Config().models_dir,
        Config().input_folders,
    )
