"""The daemon on a machine with a GPU, whose networks have still to be compiled: what it computes with, says and leaves behind.

GPU, TensorRT and pycuda are those of `tests/engines/fake_nvidia`; daemon, worker, builder, bus and plans are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from denoised.engines.bundle import write_sums

TESTS = Path(__file__).parent.parent
PLC = TESTS.parent / "docs" / "plc.md"
PATH = os.pathsep.join(str(TESTS / p) for p in ("daemon/toy", "daemon/gpu", "engines/fake_nvidia"))
TOY_BUILD = "build-toy-model-fp32-denoiser"
CPU, GPU = "CPUExecutionProvider", "tensorrt 10.3.0"
BUILDS = {
    TOY_BUILD,
    "build-plant-imputer-fp32-encoder",
    "build-plant-imputer-fp32-denoiser",
    "build-surface-defects-fp32-denoiser",
    "build-surface-defects-fp32-detector",
}


@pytest.fixture
def make_gateway(make_daemon, tmp_path):
    """make_gateway(step_s=..., **environment) -> a started daemon with backend tensorrt; nothing is built yet."""

    def make(step_s: float = 0.0, models: Path | None = None, **environment: str):
        more = {"models": {"dir": str(models), "require_signature": False}} if models else {}
        engine = {"backend": "tensorrt", "threads": 1}
        daemon = make_daemon(start=False, engine=engine, cache_dir=str(tmp_path / "cache"), **more)
        daemon.environment = {"PYTHONPATH": PATH, "FAKE_TENSORRT_STEP_S": str(step_s), **environment}
        daemon.start()
        return daemon

    return make


def plans(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "tensorrt").glob("*.plan"))


def run(daemon, name: str, **params) -> dict:
    daemon.submit("toy", {"id": name, "seed": 5, "params": params})
    result = daemon.result(name)
    assert result["state"] == "done", result
    return result


def values(result: dict) -> np.ndarray:
    text = Path(result["artifacts"][0]["path"]).read_text()
    return np.frombuffer(bytes.fromhex(text.replace("\n", "")), np.float32)


def built(daemon, build: str) -> dict:
    """The end of a build."""
    return daemon.wait_for(f"jobs/{build}/result")


def runs(daemon, build: str, **wanted) -> None:
    daemon.wait_for(f"jobs/{build}/event", lambda v: v["state"] == "running" and v["progress"] >= wanted.get("progress", 0))


def order(daemon, job_id: str, verb: str) -> None:
    daemon.client.publish(f"{daemon.base}/jobs/{job_id}/{verb}", b"")


def builders(daemon) -> list[int]:
    return [p for p in daemon.children("python") if b"denoised.engines.trt_build" in Path(f"/proc/{p}/cmdline").read_bytes()]


def gone(pid: int) -> bool:
    """Whether this process ends, within the time that a build may take to notice."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


# ---- meanwhile, and afterwards --------------------------------------------------------------------------------------------


def test_onnxruntime_computes_until_the_plan_is_there_and_then_the_gpu(make_gateway, tmp_path):
    daemon = make_gateway(step_s=0.3)
    first = run(daemon, "first")
    assert first["provider"] == CPU
    assert "onnxruntime computes meanwhile" in daemon.logged()

    ended = built(daemon, TOY_BUILD)
    assert (ended["state"], ended["kind"]) == ("done", "engine-build") and ended["run_ms"] > 0
    events = daemon.all(f"jobs/{TOY_BUILD}/event")
    assert [e["state"] for e in events][:2] == ["accepted", "running"]
    progress = [e["progress"] for e in events]
    assert progress == sorted(progress) and len(set(progress)) > 2 and progress[-1] <= 1
    late = next(e for e in events if e.get("phase") == "Timing tactics" and e.get("eta_ms", 0) > 0)
    shown = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", PLC.read_text("utf-8"), re.M | re.S)]
    assert [list(e) for e in shown if e.get("kind") == "engine-build"] == [list(late), list(ended)], "in docs/plc.md"

    daemon.wait_for("telemetry", lambda v: v["worker"].get("providers") == [GPU] and v["worker"]["state"] == "idle")
    assert {b["id"]: b["state"] for b in daemon.all("telemetry")[-1]["builds"]} == dict.fromkeys(BUILDS, "done")
    assert len(plans(tmp_path)) == len(BUILDS)
    second = run(daemon, "second")
    assert second["provider"] == GPU
    np.testing.assert_allclose(values(second), values(first), rtol=1e-4, atol=1e-5)
    assert daemon.all("status")[-1]["problems"] == []

    daemon.stop()
    daemon.seen.clear()
    daemon.start()
    assert run(daemon, "third")["provider"] == GPU
    assert daemon.all(f"jobs/{TOY_BUILD}/event") == []


def test_a_build_begins_only_when_nothing_else_is_to_be_done_and_then_goes_on(make_gateway):
    daemon = make_gateway(step_s=0.3)
    runs(daemon, TOY_BUILD, progress=0.1)
    daemon.submit("toy", {"id": "long", "params": {"count": 10_000}})
    assert built(daemon, TOY_BUILD)["state"] == "done"
    daemon.seen = [(topic, v) for topic, v in daemon.seen if topic != "telemetry"]
    for n in range(1, 4):
        daemon.wait_for("telemetry", lambda v, n=n: len(daemon.all("telemetry")) >= n)
    states = [b["state"] for b in daemon.all("telemetry")[-1]["builds"]]
    assert sorted(states) == ["accepted"] * (len(BUILDS) - 1) + ["done"]
    command = [sys.executable, "-m", "denoised", "status", "--config", str(daemon.config)]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    assert "build   build-surface-defects-fp32-denoiser: accepted, 0%, not begun" in shown
    order(daemon, "long", "cancel")
    result = daemon.result("long")
    assert (result["state"], result["provider"]) == ("cancelled", None)
    for build in BUILDS:
        assert built(daemon, build)["state"] == "done"
    assert run(daemon, "after")["provider"] == GPU


def test_a_job_laid_aside_on_the_cpu_begins_anew_on_the_gpu_so_that_its_bytes_are_of_one_provider(make_gateway):
    daemon = make_gateway(step_s=0.3)
    daemon.submit("toy", {"id": "held", "seed": 5, "params": {"count": 40}})
    daemon.wait_for("jobs/held/event", lambda v: v.get("item", 0) >= 5)
    order(daemon, "held", "pause")
    daemon.wait_for("jobs/held/event", lambda v: v.get("reason") == "operator")
    daemon.wait_for("telemetry", lambda v: v["worker"].get("providers") == [GPU] and v["worker"]["state"] == "idle")
    order(daemon, "held", "resume")
    held = daemon.result("held")
    assert (held["provider"], held.get("resumed_steps")) == (GPU, None)
    assert held["artifacts"][0]["sha256"] == run(daemon, "whole", count=40)["artifacts"][0]["sha256"]


def test_a_model_that_a_job_names_first_is_built_too(make_gateway, toy_models, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(toy_models, models)
    shutil.copytree(models / "toy-model", models / "toy-second")
    manifest = yaml.safe_load((models / "toy-second" / "model.yaml").read_text())
    (models / "toy-second" / "model.yaml").write_text(yaml.safe_dump({**manifest, "name": "toy-second"}))
    write_sums(models / "toy-second")
    daemon = make_gateway(models=models)
    assert built(daemon, TOY_BUILD)["state"] == "done"
    assert daemon.all("jobs/build-toy-second-fp32-denoiser/event") == []
    assert run(daemon, "second-cpu", model="toy-second")["provider"] == CPU
    assert built(daemon, "build-toy-second-fp32-denoiser")["state"] == "done"
    daemon.wait_for("telemetry", lambda v: v["worker"].get("providers") == [GPU] and v["worker"]["state"] == "idle")
    assert run(daemon, "second-gpu", model="toy-second")["provider"] == GPU


# ---- what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_build_is_cancelled_by_its_topic_and_not_begun_again_before_a_reload(make_gateway, tmp_path):
    daemon = make_gateway(step_s=0.5)
    runs(daemon, TOY_BUILD, progress=0.1)
    (child,) = builders(daemon)
    assert os.getsid(child) == child and os.getpriority(os.PRIO_PROCESS, child) >= 10
    order(daemon, "build-surface-defects-fp32-denoiser", "cancel")
    order(daemon, TOY_BUILD, "cancel")
    assert built(daemon, TOY_BUILD)["state"] == "cancelled"
    assert built(daemon, "build-surface-defects-fp32-denoiser") | {"time": ""} == {
        "id": "build-surface-defects-fp32-denoiser", "kind": "engine-build", "state": "cancelled", "time": "", "run_ms": 0
    }  # fmt: skip
    assert gone(child)
    for build in BUILDS - {TOY_BUILD, "build-surface-defects-fp32-denoiser"}:
        assert built(daemon, build)["state"] == "done"
    daemon.wait_for("telemetry", lambda v: v["worker"].get("providers") == [CPU, GPU] and v["worker"]["state"] == "idle")
    assert [name.partition("-")[0] for name in plans(tmp_path)] == ["plant", "plant", "surface"]
    assert run(daemon, "j")["provider"] == CPU
    assert len(daemon.all(f"jobs/{TOY_BUILD}/result")) == 1
    assert daemon.all("status")[-1]["problems"] == []
    daemon.seen.clear()
    daemon.process.send_signal(signal.SIGHUP)
    assert built(daemon, TOY_BUILD)["state"] == "done"


def test_a_network_that_tensorrt_does_not_take_is_a_problem_and_jobs_go_on(make_gateway, tmp_path):
    daemon = make_gateway(FAKE_TENSORRT_CANNOT="Could not find any implementation for node MatMul")
    ended = built(daemon, TOY_BUILD)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "engine")
    assert "Could not find any implementation for node MatMul" in ended["error"]["message"]
    status = daemon.wait_for("status", lambda v: {p["about"] for p in v["problems"]} == BUILDS)
    problem = next(p for p in status["problems"] if p["about"] == TOY_BUILD)
    assert "Could not find any implementation" in problem["message"] and "onnxruntime computes instead" in problem["message"]
    assert run(daemon, "j")["provider"] == CPU
    assert plans(tmp_path) == []


def test_a_builder_that_is_killed_is_a_problem_and_the_next_build_begins(make_gateway):
    daemon = make_gateway(step_s=0.5)
    runs(daemon, TOY_BUILD, progress=0.1)
    os.kill(builders(daemon)[0], signal.SIGKILL)
    ended = built(daemon, TOY_BUILD)
    assert ended["state"] == "failed" and "killed by signal 9" in ended["error"]["message"]
    runs(daemon, "build-plant-imputer-fp32-encoder")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_daemon_that_ends_during_a_build_leaves_no_child_and_no_half_plan(make_gateway, tmp_path, how):
    daemon = make_gateway(step_s=0.5)
    runs(daemon, TOY_BUILD, progress=0.1)
    (child,) = builders(daemon)
    if how == "killed":
        daemon.kill()
    else:
        assert daemon.stop() == 0
        ended = built(daemon, TOY_BUILD)
        assert (ended["state"], ended["reason"]) == ("cancelled", "the daemon stops")
    assert gone(child)
    assert [path.name for path in (tmp_path / "cache" / "tensorrt").iterdir()] == ["build.lock"]
    daemon.seen.clear()
    daemon.start()
    assert built(daemon, TOY_BUILD)["state"] == "done"


def test_a_daemon_that_comes_back_waits_for_the_end_of_the_build_that_it_had_begun(make_gateway):
    daemon = make_gateway(step_s=0.2)
    runs(daemon, TOY_BUILD, progress=0.1)
    (child,) = builders(daemon)
    os.kill(child, signal.SIGSTOP)
    daemon.kill()
    daemon.seen.clear()
    daemon.start()
    assert run(daemon, "j")["provider"] == CPU
    daemon.wait_for("telemetry", lambda v: v["worker"]["state"] == "idle" and len(v["builds"]) == len(BUILDS))
    daemon.seen = [(topic, v) for topic, v in daemon.seen if topic != "telemetry"]
    for n in range(1, 6):
        daemon.wait_for("telemetry", lambda v, n=n: len(daemon.all("telemetry")) >= n)
    assert {b["state"] for b in daemon.all("telemetry")[-1]["builds"]} == {"accepted"}
    os.kill(child, signal.SIGCONT)
    assert gone(child)
    for build in BUILDS:
        assert built(daemon, build)["state"] == "done"


def test_a_plan_that_was_damaged_is_built_again(make_gateway, tmp_path):
    daemon = make_gateway()
    for build in BUILDS:
        assert built(daemon, build)["state"] == "done"
    daemon.stop()
    (plan,) = (tmp_path / "cache" / "tensorrt").glob("toy-model-*.plan")
    good = plan.read_bytes()
    plan.write_bytes(good[:-1] + b"?")
    daemon.seen.clear()
    daemon.start()
    assert built(daemon, TOY_BUILD)["state"] == "done"
    daemon.wait_for("telemetry", lambda v: v["worker"].get("providers") == [GPU] and v["worker"]["state"] == "idle")
    assert plan.read_bytes() == good
    assert "damaged" in daemon.logged()


def test_a_gateway_without_a_gpu_says_so_and_builds_nothing(make_daemon, tmp_path):
    daemon = make_daemon(engine={"backend": "tensorrt"}, cache_dir=str(tmp_path / "cache"))
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    status = daemon.wait_for("status", lambda v: any(p["about"] == "toy-model" for p in v["problems"]))
    assert any("engine.backend: onnxruntime" in p["message"] for p in status["problems"])
    assert daemon.wait_for("telemetry", lambda v: v["builds"] == [])
    assert not (tmp_path / "cache").exists()
