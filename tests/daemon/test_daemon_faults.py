"""What goes wrong beside a job: its worker, the zygote, the engine, memory, the disk; and an operator who wants it to wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from denoised.engines.bundle import write_sums

TOY = Path(__file__).parent / "toy"
LONG = {"seed": 9, "params": {"count": 60}}


def content(result: dict) -> str:
    return result["artifacts"][0]["sha256"]


def start_long(daemon, name: str, **more) -> None:
    """A job of some seconds that is a third of its way."""
    daemon.submit("toy", {"id": name, **LONG, **more})
    daemon.wait_for(f"jobs/{name}/event", lambda v: v.get("item", 0) >= 20)


def order(daemon, job_id: str, verb: str, **properties) -> None:
    daemon.client.publish(f"{daemon.base}/jobs/{job_id}/{verb}", b"", **properties)


def states(daemon, name: str) -> list[tuple[str, str | None]]:
    """State changes in order, progress left out."""
    said = [(e["state"], e.get("reason")) for e in daemon.all(f"jobs/{name}/event")]
    return [s for n, s in enumerate(said) if n == 0 or s != said[n - 1]]


def newest(daemon, wanted) -> dict:
    """Telemetry from now on that is wanted."""
    daemon.seen = [(topic, v) for topic, v in daemon.seen if topic != "telemetry"]
    return daemon.wait_for("telemetry", wanted)


# ---- pause ----------------------------------------------------------------------------------------------------------------


def test_a_paused_job_lets_others_by_survives_a_kill_and_ends_in_the_same_bytes(daemon):
    daemon.submit("toy", {"id": "calm", **LONG})
    start_long(daemon, "p")
    order(daemon, "p", "pause")
    daemon.wait_for("jobs/p/event", lambda v: (v["state"], v.get("reason")) == ("paused", "operator"))
    daemon.submit("toy", {"id": "other", "priority": 0, "params": {}})
    assert daemon.result("other")["state"] == "done"
    daemon.kill()
    daemon.start()
    daemon.submit("toy", {"id": "another", "priority": 0, "params": {}})
    assert daemon.result("another")["state"] == "done"
    assert daemon.all("jobs/p/result") == []
    order(daemon, "p", "resume")
    result = daemon.result("p")
    assert content(result) == content(daemon.result("calm"))
    assert result["resumed_steps"] >= 20 * 50
    assert states(daemon, "p")[-2:] == [("accepted", None), ("running", None)]


def test_a_job_that_waits_can_be_paused_too_and_cancelled_then(daemon):
    start_long(daemon, "first")
    for name in ("w1", "w2"):
        daemon.submit("toy", {"id": name, "params": {}})
        order(daemon, name, "pause")
        daemon.wait_for(f"jobs/{name}/event", lambda v: v["state"] == "paused")
    order(daemon, "w1", "resume")
    order(daemon, "w2", "cancel")
    assert daemon.result("w2")["state"] == "cancelled"
    assert daemon.result("w1")["state"] == "done"


def test_a_preempted_job_that_is_paused_stays_so_when_the_urgent_one_is_done(daemon):
    start_long(daemon, "low")
    daemon.submit("toy", {"id": "high", "priority": 9, "params": {"count": 30}})
    daemon.wait_for("jobs/low/event", lambda v: v.get("reason") == "preempted")
    order(daemon, "low", "pause")
    assert daemon.result("high")["state"] == "done"
    daemon.wait_for("jobs/low/event", lambda v: v.get("reason") == "operator")
    order(daemon, "low", "resume")
    assert daemon.result("low")["state"] == "done"


def test_a_retained_pause_is_not_obeyed(daemon):
    start_long(daemon, "r")
    order(daemon, "r", "pause", retain=True)
    assert daemon.result("r")["state"] == "done"
    newest(daemon, lambda v: v["jobs"].get("retained_refused") == 1)
    order(daemon, "r", "pause", retain=True)  # an empty payload has taken it off the broker already


@pytest.mark.parametrize(("verb", "code", "words"), [("pause", 0, "c paused"), ("cancel", 0, "c cancelled")])
def test_the_command_job_does_it_and_says_so(daemon, verb, code, words):
    start_long(daemon, "c")
    command = [sys.executable, "-m", "denoised", "job", verb, "c", "--config", str(daemon.config)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (code, words)


# ---- worker and zygote ----------------------------------------------------------------------------------------------------


def test_a_new_worker_is_forked_with_everything_imported(daemon):
    """The second worker of a kind that needs OpenCV has it from the zygote, which learnt of it from the first."""
    daemon.wait_for("telemetry", lambda v: v["worker"]["ready"])
    (zygote,) = daemon.children("denoised-zygote")
    assert len(list(Path(f"/proc/{zygote}/task").iterdir())) == 1, "a process with threads must not fork"
    assert "onnxruntime" in Path(f"/proc/{zygote}/maps").read_text()
    assert "cv2" not in Path(f"/proc/{zygote}/maps").read_text()
    picture = daemon.folder / "state" / "inputs" / "part.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    import cv2

    cv2.imwrite(str(picture), np.full((96, 96), 128, np.uint8))
    daemon.submit("defect-synthesis", {"id": "d", "params": {"image": {"path": "part.png"}}})
    assert daemon.result("d")["state"] == "done"
    daemon.submit("toy", {"id": "t", "params": {}})
    daemon.result("t")
    assert "cv2" in Path(f"/proc/{zygote}/maps").read_text()
    assert len(list(Path(f"/proc/{zygote}/task").iterdir())) == 1


def test_without_its_zygote_a_worker_works_on_and_the_next_one_comes_all_the_same(daemon):
    daemon.submit("toy", {"id": "calm", **LONG})
    start_long(daemon, "z")
    (zygote,), (worker,) = daemon.children("denoised-zygote"), daemon.children("denoised-worker")
    os.kill(zygote, signal.SIGKILL)
    daemon.wait_for("jobs/z/event", lambda v: v.get("item", 0) >= 30)
    assert newest(daemon, lambda v: v["worker"]["pid"])["worker"]["pid"] == worker
    os.kill(worker, signal.SIGKILL)
    assert content(daemon.result("z")) == content(daemon.result("calm"))
    assert daemon.children("denoised-zygote") != [zygote]


def test_an_idle_worker_leaves_the_memory_and_comes_back_for_the_next_job(make_daemon):
    daemon = make_daemon(engine={"unload_after": 0.3})
    daemon.wait_for("telemetry", lambda v: v["worker"]["state"] == "unloaded")
    assert daemon.children("denoised-worker") == []
    daemon.submit("toy", {"id": "a", "params": {}})
    assert daemon.result("a")["state"] == "done"


def test_a_worker_that_grew_is_replaced_between_two_jobs(make_daemon):
    daemon = make_daemon(engine={"memory_limit_mb": 300})
    daemon.submit("toy", {"id": "leak", "params": {"hold_mb": 280}})
    assert daemon.result("leak")["state"] == "done"
    (worker,) = daemon.children("denoised-worker")
    newest(daemon, lambda v: v["worker"]["pid"] not in (worker, None) and v["memory_mb"]["worker"] < 300)
    daemon.submit("toy", {"id": "next", "params": {}})
    assert daemon.result("next")["state"] == "done"


def test_a_job_that_eats_the_memory_is_given_up_and_the_others_go_on(make_daemon):
    daemon = make_daemon(engine={"memory_limit_mb": 200})
    daemon.submit("toy", {"id": "greedy", "params": {"hold_mb": 600, "die": "hang"}})
    daemon.submit("toy", {"id": "modest", "params": {}})
    error = daemon.result("greedy")["error"]
    assert (error["code"], "engine.memory_limit_mb" in error["message"]) == ("engine", True)
    assert daemon.result("modest")["state"] == "done"


def test_a_library_that_is_built_for_another_cpu_is_named_and_the_daemon_stays_up(make_daemon, tmp_path):
    """An illegal instruction at the import of onnxruntime, as its wheels do on some ARM cores: never the daemon's own end."""
    (tmp_path / "onnxruntime.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    daemon = make_daemon(start=False)
    daemon.environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{TOY}"
    daemon.start()
    told = daemon.wait_for("status", lambda v: v.get("problems"))
    assert "an illegal instruction: a library, most likely onnxruntime" in told["problems"][0]["message"]
    assert daemon.stop() == 0


# ---- the engine -----------------------------------------------------------------------------------------------------------


def test_a_fault_of_the_engine_that_passes_costs_a_try_and_not_the_job(daemon):
    daemon.submit("toy", {"id": "e", "params": {"die": "engine-once"}})
    assert daemon.result("e")["state"] == "done"
    assert ("accepted", "tried again: a call that failed") in states(daemon, "e")
    assert newest(daemon, lambda v: True)["jobs"]["tried_again"] == 1


def test_a_fault_of_the_engine_that_stays_ends_the_job_and_not_the_next_one(daemon):
    daemon.submit("toy", {"id": "e", "params": {"die": "engine"}})
    daemon.submit("toy", {"id": "fine", "params": {}})
    error = daemon.result("e")["error"]
    assert (error["code"], error["message"]) == ("engine", "a call that failed")
    assert newest(daemon, lambda v: True)["jobs"]["tried_again"] == 4
    assert daemon.result("fine")["state"] == "done"


def test_a_model_that_is_no_network_is_named_and_the_daemon_stays_up(make_daemon, toy_models, tmp_path):
    """A permanent fault is no reason to restart for ever."""
    broken = tmp_path / "models" / "toy-model"
    broken.mkdir(parents=True)
    manifest = yaml.safe_load((toy_models / "toy-model" / "model.yaml").read_text())
    (broken / "model.yaml").write_text(yaml.safe_dump(manifest))
    (broken / "denoiser.onnx").write_bytes(b"no network at all")
    write_sums(broken)
    daemon = make_daemon(models={"dir": str(tmp_path / "models"), "require_signature": False})
    told = daemon.wait_for("status", lambda v: v.get("problems"))
    assert "denoiser.onnx: onnxruntime cannot load it" in told["problems"][0]["message"]
    daemon.submit("toy", {"id": "a", "params": {}})
    assert daemon.result("a")["error"]["code"] == "engine"
    (worker,) = daemon.children("denoised-worker")
    assert newest(daemon, lambda v: v["uptime_s"] >= 3)["worker"]["pid"] == worker


# ---- the disk -------------------------------------------------------------------------------------------------------------


def test_with_a_full_disk_nothing_is_accepted_and_all_goes_on_by_itself_when_there_is_room(make_daemon):
    daemon = make_daemon(queue={"min_free_mb": 10**9})
    daemon.wait_for("status", lambda v: [p["code"] for p in v.get("problems", ())] == ["storage"])
    daemon.submit("toy", {"id": "a", "params": {}})
    error = daemon.result("a")["error"]
    assert (error["code"], error["retry_after_ms"]) == ("storage", 60_000)
    assert "1000000000 MB are needed" in error["message"]
    daemon.settings["queue"] = {"min_free_mb": 0}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("status", lambda v: v.get("problems") == [])
    daemon.submit("toy", {"id": "b", "params": {}})
    assert daemon.result("b")["state"] == "done"


def test_a_job_accepted_before_the_disk_was_full_waits_for_room(make_daemon):
    daemon = make_daemon(queue={"min_free_mb": 0})
    start_long(daemon, "runs")
    daemon.submit("toy", {"id": "waits", "params": {}})
    daemon.wait_for("jobs/waits/event")
    daemon.settings["queue"] = {"min_free_mb": 10**9}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("status", lambda v: v.get("problems"))
    newest(daemon, lambda v: v["queue"]["jobs"] == 2 and v["running"] == [])
    daemon.settings["queue"] = {"min_free_mb": 0}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.result("runs")["state"] == daemon.result("waits")["state"] == "done"


def test_an_idle_daemon_writes_nothing(daemon):
    daemon.submit("toy", {"id": "a", "params": {}})
    daemon.result("a")
    daemon.look(2.5)  # what was delivered is deleted within a second; that is the last write

    def written() -> int:
        pids = [daemon.process.pid, *daemon.children()]
        lines = [line for pid in pids for line in Path(f"/proc/{pid}/io").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    daemon.log.flush()
    before = written()
    daemon.look(3.0)
    assert written() == before


# ---- what a person finds afterwards ---------------------------------------------------------------------------------------


def test_the_flight_recorder_tells_what_led_to_a_crash(daemon):
    daemon.submit("toy", {"id": "once", "params": {"die": "once"}})
    assert daemon.result("once")["state"] == "done"
    command = [sys.executable, "-m", "denoised", "flight", "--config", str(daemon.config)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    first, *rest = shown.stdout.splitlines()
    assert "FAULT    the worker died: killed by signal 9" in first
    assert any("connected to 127.0.0.1" in line for line in rest)
    assert any("MEASURED" in line and '"memory_mb"' in line for line in rest)
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True).stdout
    assert "the worker died" in listed


def test_without_a_fault_there_is_no_flight_record(daemon):
    command = [sys.executable, "-m", "denoised", "flight", "--config", str(daemon.config)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 1
    assert "nothing has broken" in shown.stderr


def test_every_result_says_whether_the_clock_can_be_trusted(daemon):
    daemon.submit("toy", {"id": "a", "params": {}})
    assert daemon.result("a")["clock"] in ("synchronised", "free-running", "unknown")


def test_status_shows_a_problem_to_a_person(make_daemon):
    daemon = make_daemon(queue={"min_free_mb": 10**9})
    daemon.wait_for("status", lambda v: v.get("problems"))
    command = [sys.executable, "-m", "denoised", "status", "--config", str(daemon.config)]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    assert "PROBLEM disk:" in shown
    assert json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True).stdout)["status"]["problems"]
