"""A real broker, the real daemon in a process of its own, and a plain MQTT client; nothing here is a mock."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from denoised.config import typed
from denoised.config.tree import Mqtt
from denoised.daemon.client import Client
from denoised.demo.broker import Broker, find_mosquitto
from denoised.engines.bundle import write_sums
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell, which our children would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast the machine is just now is nothing that a test may fail for.
settings.register_profile("denoised", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("denoised")

TOY = Path(__file__).parent / "daemon" / "toy"
PATIENCE = 30.0
"""Seconds that an answer may take on a busy machine before the test fails; nothing waits for it to pass."""


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: sudo apt-get install mosquitto")
    with Broker("mosquitto", tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory):
    """A folder with one bundle for the toy kind: 50 steps of a network that takes about a millisecond each."""
    folder = tmp_path_factory.mktemp("models") / "toy-model"
    folder.mkdir()
    weights = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32) / 32
    nodes = [helper.make_node("MatMul", ["x", "up"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(3)]
    nodes += [helper.make_node("MatMul", ["h3", "down"], ["y"]), helper.make_node("Mul", ["y", "small"], ["z"])]
    nodes += [helper.make_node("Unsqueeze", ["t", "axis"], ["tt"]), helper.make_node("Add", ["z", "tt"], ["out"])]
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 256]),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch"]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 256])],
        [
            numpy_helper.from_array(weights[:256], "up"),
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.ascontiguousarray(weights[:, :256]), "down"),
            numpy_helper.from_array(np.float32(0.01), "small"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "denoiser.onnx")
    manifest = {
        "name": "toy-model",
        "version": "1.0.0",
        "kind": "toy",
        "licence": "Apache-2.0",
        "training": {"data": "none, random weights"},
        "prediction": "v",
        "schedule": "cosine",
        "variants": {"fp32": {"denoiser": "denoiser.onnx"}},
        "operating_points": [{"variant": "fp32", "sampler": "ddim", "steps": 50}],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    write_sums(folder)
    return folder.parent


class Daemon:
    """The daemon under test, and a client that has seen everything on its topics since before it started."""

    def __init__(self, folder: Path, broker: Broker, settings: dict):
        self.folder = folder
        self.id = f"gw-{secrets.token_hex(4)}"
        self.base = f"denoised/{self.id}"
        self.settings = {
            "gateway": {"id": self.id},
            "mqtt": {"port": broker.port},
            "state_dir": str(folder / "state"),
            "telemetry": {"period": 0.2},
            **settings,
        }
        self.settings["mqtt"].setdefault("port", broker.port)
        self.config = folder / "denoised.yaml"
        self.write()
        self.connect(broker.port)
        self.seen: list[tuple[str, object]] = []
        self.replies: list[tuple[str, bytes | None, object]] = []
        self.process: Any = None
        self.environment: dict[str, str] = {}

    def connect(self, port: int) -> None:
        self.client = Client(typed.read({"port": port}, Mqtt), [f"{self.base}/#", f"plant-{self.id}/#"])
        self.client.__enter__()

    def write(self) -> None:
        self.config.write_text(yaml.safe_dump(self.settings))

    def start(self) -> None:
        env = {**os.environ, "PYTHONPATH": str(TOY), "PYTHONUNBUFFERED": "1", **self.environment}
        self.log = (self.folder / "daemon.log").open("ab")
        command = [sys.executable, "-m", "denoised", "run", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=env, cwd=self.folder)
        self.wait_for("status", lambda v: v.get("state") == "online")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.seen = [(topic, v) for topic, v in self.seen if topic != "status"]

    def children(self, what: str = "denoised-") -> list[int]:
        """Process ids of everything below the daemon that is named so: denoised-zygote, denoised-worker, denoised-cameras."""
        parents, found = [self.process.pid], []
        while parents:
            pid = parents.pop()
            with contextlib.suppress(OSError):
                below = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
                parents += below
                found += [p for p in below if Path(f"/proc/{p}/comm").read_text().startswith(what)]
        return found

    def logged(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def submit(self, kind: str, request: object, **properties) -> None:
        self.client.publish(f"{self.base}/jobs/{kind}/submit", request, **properties)

    def wait_for(self, topic: str, wanted=lambda value: True):
        """The first message on `base/topic` (or that topic itself) that is wanted, old or new."""
        until = time.monotonic() + PATIENCE
        at = 0
        while True:
            for name, value in self.seen[at:]:
                if name == topic and wanted(value):
                    return value
            at = len(self.seen)
            if time.monotonic() > until:
                raise AssertionError(f"nothing wanted on {topic}; seen {self.seen[-12:]}; log: {self.logged()[-3000:]}")
            self.look(0.05)

    def look(self, seconds: float) -> None:
        """Takes what arrives."""
        for message in self.client.messages(seconds):
            name = message.topic.removeprefix(self.base + "/")
            try:
                value = json.loads(message.payload)
            except (ValueError, RecursionError):  # a test may send anything
                value = message.payload
            self.seen.append((name, value))
            self.replies.append((name, message.correlation, value))

    def result(self, job_id: str) -> dict:
        return self.wait_for(f"jobs/{job_id}/result")

    def all(self, topic: str) -> list:
        return [value for name, value in self.seen if name == topic]


@contextlib.contextmanager
def _daemons(folder: Path, broker: Broker, models: Path):
    made: list[Daemon] = []

    def make(start: bool = True, **settings) -> Daemon:
        settings.setdefault("models", {"dir": str(models), "require_signature": False})
        settings.setdefault("mqtt", {})
        own = folder / f"d{len(made)}"
        own.mkdir()
        daemon = Daemon(own, broker, settings)
        made.append(daemon)
        if start:
            daemon.start()
        return daemon

    yield make
    for daemon in made:
        daemon.client.__exit__()
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture
def make_daemon(tmp_path, broker, toy_models):
    """make_daemon(**settings) -> a started `Daemon`; with start=False one that is not."""
    with _daemons(tmp_path, broker, toy_models) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_daemon(tmp_path_factory, broker, toy_models):
    """The same for a daemon that all tests of a file share."""
    with _daemons(tmp_path_factory.mktemp("shared"), broker, toy_models) as make:
        yield make


@pytest.fixture
def daemon(make_daemon):
    return make_daemon()
