"""The daemon's builds with NVIDIA's own builder (TensorRT-RTX, which needs no GPU) as their child.

What is said goes into a list: the bus's part is in `test_outbox.py`, the daemon's in `test_daemon_builds.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.builds import Builds
from denoised.engines.bundle import SHIPPED, read_bundle
from denoised.engines.trt_build import find_plan
from denoised.engines.trt_library import Gpu

GPU = Gpu("NVIDIA RTX 4000", "8.9", 48, "13.0", False, 1 << 33, 1 << 34)
IMPUTER = "build-plant-imputer-fp32-denoiser"


class Said:
    """The part of `Outbox` that builds use."""

    def __init__(self):
        self.words: list[tuple[str, dict]] = []

    def say(self, kind, message):
        assert kind == "event"
        self.progress(message)

    def progress(self, message):
        self.words.append((message.topic, json.loads(message.payload)))

    def of(self, build, what):
        return [words for topic, words in self.words if topic == f"denoised/gw1/jobs/{build}/{what}"]


@pytest.fixture
def said():
    return Said()


@pytest.fixture
def builds(said, tmp_path):
    if importlib.util.find_spec("tensorrt") or not importlib.util.find_spec("tensorrt_rtx_bindings"):
        pytest.skip("not with TensorRT-RTX: it is not installed, or TensorRT itself is")
    config = typed.read({"gateway": {"id": "gw1"}, "cache_dir": str(tmp_path)}, Config)
    made = Builds(config, {}, said, time.time)
    yield made
    made.stop("the test is over")


def wanted(model: str, name: str = "denoiser", variant: str = "fp32") -> dict:
    """What the worker says."""
    bundle = read_bundle(SHIPPED / model)
    return {
        "model": model,
        "variant": variant,
        "name": name,
        "onnx": str(bundle.file(bundle.manifest.variants[variant][name])),
        "ranges": {symbol: list(ends) for symbol, ends in bundle.manifest.ranges.items()},
        "gpu": asdict(GPU),
    }


def turn(builds: Builds, until) -> None:
    """The supervisor's loop, as far as it is about builds."""
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        builds.look(idle=True)
        if watched := builds.watched():
            select.select([watched[0]], [], [], 0.2)
        builds.hear()


@pytest.mark.parametrize("name", ["encoder", "denoiser"])
def test_a_shipped_network_is_built_for_its_ranges_with_progress(builds, said, tmp_path, name):
    build, request = f"build-plant-imputer-fp32-{name}", wanted("plant-imputer", name)
    builds.want(request)
    builds.look(idle=False)
    assert [e["state"] for e in said.of(build, "event")] == ["accepted"]
    turn(builds, lambda: said.of(build, "result"))
    assert said.of(build, "result")[0]["state"] == "done" and builds.fresh
    events = said.of(build, "event")
    assert events[1]["state"] == "running" and any(e.get("phase") and e["progress"] > 0 for e in events)
    ranges = read_bundle(SHIPPED / "plant-imputer").manifest.ranges
    assert ranges["samples"][2] == 256
    assert find_plan(Path(request["onnx"]), tmp_path / "tensorrt", GPU, ranges)


def test_what_is_wanted_twice_is_built_once_and_what_is_not_found_not_for_ever(builds, said):
    for _ in range(2):
        builds.want(wanted("plant-imputer"))
    turn(builds, lambda: said.of(IMPUTER, "result"))
    builds.want(wanted("plant-imputer"))  # said before the worker is renewed
    assert [e["state"] for e in said.of(IMPUTER, "event") if e["state"] != "running"] == ["accepted"]
    builds.fresh = False
    builds.want(wanted("plant-imputer"))
    turn(builds, lambda: len(said.of(IMPUTER, "result")) == 2)
    builds.fresh = False
    builds.want(wanted("plant-imputer"))
    assert [r["state"] for r in said.of(IMPUTER, "result")] == ["done", "done", "failed"]
    assert [p["about"] for p in builds.problems()] == [IMPUTER]


def test_a_running_build_is_cancelled_and_an_unknown_one_is_somebody_else_s(builds, said, tmp_path):
    builds.want(wanted("surface-defects"))
    build = "build-surface-defects-fp32-denoiser"
    turn(builds, lambda: any(e["progress"] > 0 for e in said.of(build, "event")))
    assert builds.cancel(build) and not builds.cancel("L1-000123")
    turn(builds, lambda: said.of(build, "result"))
    assert said.of(build, "result")[0]["state"] == "cancelled" and not builds.fresh
    assert list((tmp_path / "tensorrt").glob("*.plan")) == []
    builds.want(wanted("surface-defects"))
    assert builds.told()[0]["state"] == "cancelled"


def test_a_child_that_does_not_listen_is_killed_in_the_end(builds, said, monkeypatch):
    monkeypatch.setattr("denoised.daemon.builds._CANCEL_PATIENCE", 0.5)
    builds.want(wanted("surface-defects"))
    build = "build-surface-defects-fp32-denoiser"
    turn(builds, lambda: any(e["state"] == "running" for e in said.of(build, "event")))
    os.kill(builds._process.pid, signal.SIGSTOP)
    builds.cancel(build)
    turn(builds, lambda: said.of(build, "result"))
    assert said.of(build, "result")[0]["state"] == "cancelled"


def test_names_that_no_topic_may_have_are_replaced(builds, said):
    builds.want({**wanted("plant-imputer"), "variant": "fp32/#"})
    assert [topic for topic, _ in said.words] == ["denoised/gw1/jobs/build-plant-imputer-fp32__-denoiser/event"]
