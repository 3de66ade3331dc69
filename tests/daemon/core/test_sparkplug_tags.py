"""The metrics that hosts see: what the documentation says of them, and what becomes of the daemon's words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from denoised.config import typed
from denoised.config.tree import Tag
from denoised.daemon.core import sparkplug_tags as tags
from denoised.daemon.core.gaps import Sample
from denoised.daemon.core.sparkplug_metric import BAD, GOOD, STALE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "sparkplug.md").read_text("utf-8")


def rows() -> dict[str, str]:
    """Metric -> type, from the tables of the page."""
    found = re.findall(r"^\| (`.*?`) \| (Int64|Double|String|Boolean) \|", PAGE, re.MULTILINE)
    return {name: kind for names, kind in found for name in re.findall("`([^`]+)`", names)}


def test_the_page_names_every_metric_with_its_type_and_no_other():
    settings = {"<tag>": typed.read({"topic": "t"}, Tag)}
    metrics = [*tags.node(["<kind>"]), *tags.camera(), *tags.group(settings)]
    ours = {m.name: m.type.name.capitalize() for m in metrics}
    assert rows() == {**ours, "bdSeq": "Int64", "Node Control/Rebirth": "Boolean"}


def test_a_running_job_that_ended_is_told_as_none():
    assert dict(tags.of_telemetry({"running": [{"id": "a", "kind": "toy"}]}))["Jobs/Running/Id"] == "a"
    assert dict(tags.of_telemetry({"running": []}))["Jobs/Running/Id"] is None


def test_counters_begin_at_nothing_and_what_a_board_does_not_measure_is_null():
    told = dict(tags.of_telemetry({}))
    assert (told["Jobs/Done"], told["Governor/Power"], told["Governor/Temperature"]) == (0, None, None)


def test_the_operating_point_is_told_in_words_and_numbers_without_noise():
    told = dict(tags.of_telemetry({"operating_point": {"variant": "fp32", "steps": 50}, "governor": {"temp_c": 61.2345}}))
    assert (told["Governor/Operating Point"], told["Governor/Temperature"]) == ("variant=fp32 steps=50", 61.23)


@pytest.mark.parametrize(
    ("sample", "in_tag", "beside"),
    [
        (Sample("oil", 1.0, 5.0, "good"), (5.0, GOOD), (None, STALE)),
        (Sample("oil", 1.0, 5.0, "imputed", 4.0, 6.0), (None, STALE), (5.0, GOOD)),
        (Sample("oil", 1.0, 5.0, "uncertain", 4.0, 6.0), (None, STALE), (5.0, STALE)),
        (Sample("oil", 1.0, None, "bad"), (None, BAD), (None, BAD)),
    ],
)
def test_the_quality_of_a_sample_is_that_of_the_page(sample, in_tag, beside):
    told = {name: (value, quality) for name, value, quality in tags.of_sample(sample)}
    assert (told["oil"], told["imputed/oil/value"]) == (in_tag, beside)
