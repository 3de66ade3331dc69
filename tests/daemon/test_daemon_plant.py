"""What PLCs touch: triggers, cameras, retained commands, reload; over a real broker, in the real daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml


def picture(path: Path, level: int = 90) -> bytes:
    data = cv2.imencode(".png", np.full((8, 8), level, np.uint8))[1].tobytes()
    path.write_bytes(data)
    return data


def with_line(make_daemon, tmp_path, **trigger):
    frames = tmp_path / "frames"
    frames.mkdir(exist_ok=True)
    daemon = make_daemon(start=False)
    plant = f"plant-{daemon.id}"
    daemon.settings["cameras"] = {"line1": {"source": str(frames), "max_age": 60}}
    daemon.settings["triggers"] = {
        "inspect": {
            "topic": f"{plant}/+/part",
            "when": {"field": "ok", "equals": True},
            "kind": "toy",
            "id": "$.part",
            "params": {"count": "$.n", "camera": "line1"},
            "reply": {"topic": f"{plant}/done", "form": "json"},
            **trigger,
        }
    }
    daemon.write()
    return daemon, plant, frames


def test_a_trigger_takes_the_newest_frame_and_runs_the_job_and_the_plc_is_answered(make_daemon, tmp_path):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    picture(frames / "old.png", 10)
    os.utime(frames / "old.png", (time.time() - 30, time.time() - 30))
    newest = picture(frames / "new.png", 20)
    daemon.start()
    daemon.client.publish(f"{plant}/line1/part", {"part": "p-1", "ok": True, "n": 3})
    result = daemon.result("p-1")
    assert len(result["output"]["items"]) == 3
    reply = daemon.wait_for(f"{plant}/done")
    assert (reply["id"], reply["ok"], reply["count"]) == ("p-1", True, 3)
    assert Path(result["artifacts"][0]["path"]).read_text().splitlines()[0] == newest.hex()
    assert not list((daemon.folder / "state" / "frames").iterdir())


def test_a_condition_that_does_not_hold_fires_nothing(make_daemon, tmp_path):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    picture(frames / "a.png")
    daemon.start()
    daemon.client.publish(f"{plant}/line1/part", {"part": "bad", "ok": False, "n": 1})
    daemon.client.publish(f"{plant}/line1/part", b"not json at all")
    daemon.client.publish(f"{plant}/line1/part", {"part": "good", "ok": True, "n": 1})
    daemon.result("good")
    assert daemon.all("jobs/bad/result") == []


def test_a_number_can_be_the_whole_reply(make_daemon, tmp_path):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    daemon.settings["triggers"]["inspect"]["reply"] = {"topic": f"{plant}/count", "form": "number"}
    daemon.write()
    picture(frames / "a.png")
    daemon.start()
    daemon.client.publish(f"{plant}/line1/part", {"part": "n-1", "ok": True, "n": 4})
    assert daemon.wait_for(f"{plant}/count") == 4


@pytest.mark.parametrize(
    ("payload", "code", "field"),
    [
        ({"part": "x", "ok": True}, "bad-request", "n"),
        ({"part": "x", "ok": True, "n": "many"}, "bad-request", "params.count"),
        ({"part": "a/b", "ok": True, "n": 1}, "bad-request", "id"),
    ],
)
def test_a_trigger_with_a_bad_payload_is_answered_with_its_field(make_daemon, tmp_path, payload, code, field):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    picture(frames / "a.png")
    daemon.start()
    daemon.client.publish(f"{plant}/line1/part", payload)
    assert daemon.wait_for(f"{plant}/done")["ok"] is False
    daemon.look(0.2)
    errors = [v["error"] for _, v in daemon.seen if isinstance(v, dict) and "error" in v]
    assert [(e["code"], e.get("field")) for e in errors] == [(code, field)]


def test_a_camera_without_a_frame_fails_the_job_as_input(make_daemon, tmp_path):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    daemon.start()
    daemon.client.publish(f"{plant}/line1/part", {"part": "none", "ok": True, "n": 1})
    error = daemon.result("none")["error"]
    assert (error["code"], error["field"]) == ("input", "params.image.camera")
    assert "no picture in" in error["message"]


def test_a_stale_frame_fails_the_job_and_is_never_used(make_daemon, tmp_path):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    picture(frames / "a.png")
    os.utime(frames / "a.png", (time.time() - 3600, time.time() - 3600))
    daemon.start()
    daemon.client.publish(f"{plant}/line1/part", {"part": "stale", "ok": True, "n": 1})
    assert "max_age is 60 s" in daemon.result("stale")["error"]["message"]


def test_a_video_file_gives_its_next_frame_each_time(make_daemon, tmp_path):
    daemon, plant, _ = with_line(make_daemon, tmp_path)
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG video")
    for level in (10, 200):
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()
    daemon.settings["cameras"]["line1"]["source"] = str(video)
    daemon.write()
    daemon.start()
    levels = []
    for name in ("v1", "v2", "v3"):
        daemon.client.publish(f"{plant}/line1/part", {"part": name, "ok": True, "n": 1})
        text = Path(daemon.result(name)["artifacts"][0]["path"]).read_text()
        frame = cv2.imdecode(np.frombuffer(bytes.fromhex(text.splitlines()[0]), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert frame is not None
        levels.append(round(float(frame.mean()) / 10) * 10)
    assert levels == [10, 200, 10]


def test_a_retained_command_is_refused_and_counted(daemon):
    """Retained commands fire again at each reconnect."""
    topic = f"{daemon.base}/jobs/toy/submit"
    daemon.client.publish(topic, {"id": "ghost", "params": {}}, retain=True)
    error = daemon.result("ghost")["error"]
    assert (error["code"], error["field"]) == ("bad-request", "retain")
    daemon.wait_for("telemetry", lambda v: v["jobs"].get("retained_refused") == 1)
    daemon.stop()
    daemon.seen.clear()
    daemon.start()
    daemon.submit("toy", {"id": "after", "params": {}})
    daemon.result("after")
    assert daemon.all("jobs/ghost/result") == []
    daemon.client.publish(topic, b"", retain=True)


def test_a_retained_command_is_refused_with_mqtt_311_too(make_daemon):
    daemon = make_daemon(start=False, mqtt={"protocol": "3.1.1"})
    topic = f"{daemon.base}/jobs/toy/submit"
    daemon.client.publish(topic, {"id": "ghost", "params": {}}, retain=True)
    daemon.start()
    assert daemon.result("ghost")["error"]["field"] == "retain"
    daemon.client.publish(topic, b"", retain=True)
    daemon.submit("toy", {"id": "live", "params": {}})
    assert daemon.result("live")["state"] == "done"


def test_a_good_reload_applies_new_triggers(make_daemon, tmp_path):
    daemon, plant, frames = with_line(make_daemon, tmp_path)
    picture(frames / "a.png")
    daemon.start()
    daemon.settings["triggers"]["second"] = {"topic": f"{plant}/other", "kind": "toy", "id": "$.i", "params": {}}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("telemetry", lambda v: (v["reload"] or "").startswith("config reloaded"))
    daemon.client.publish(f"{plant}/other", {"i": "from-second"})
    assert daemon.result("from-second")["state"] == "done"


def test_a_reload_under_a_running_job_loses_nothing(make_daemon, tmp_path):
    daemon, _, _ = with_line(make_daemon, tmp_path)
    daemon.start()
    daemon.submit("toy", {"id": "run", "params": {"count": 60}})
    daemon.wait_for("jobs/run/event", lambda v: v.get("step", 0) > 0)
    daemon.settings["queue"] = {"max_jobs": 7}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.result("run")["state"] == "done"


def test_a_broken_reload_changes_nothing_and_says_why(daemon):
    daemon.config.write_text("queue: {max_jbs: 3}\n")
    daemon.process.send_signal(signal.SIGHUP)
    note = daemon.wait_for("telemetry", lambda v: "reload refused" in (v["reload"] or ""))["reload"]
    assert "max_jbs" in note
    assert f"{daemon.config}:1:9" in note
    daemon.submit("toy", {"id": "still", "params": {}})
    assert daemon.result("still")["state"] == "done"


def test_a_broken_config_never_starts_and_exits_with_2(make_daemon):
    daemon = make_daemon(start=False)
    daemon.config.write_text("mqtt:\n  prot: 5\n")
    run = subprocess.run([sys.executable, "-m", "denoised", "run", "--config", str(daemon.config)], capture_output=True)
    assert run.returncode == 2
    assert f"{daemon.config}:2:3: error" in run.stderr.decode()
    assert "did you mean" in run.stderr.decode()


def test_status_tells_the_truth_over_start_kill_and_stop(daemon):
    birth = daemon.wait_for("status")
    assert birth["models"] and {"state", "version", "started", "kinds", "models", "board"} <= birth.keys()
    daemon.kill()
    daemon.wait_for("status", lambda v: v == {"state": "offline"})


def run_cli(daemon, *words):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "toy")}
    command = [sys.executable, "-m", "denoised", *words, "--config", str(daemon.config)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)


def test_submit_waits_and_saves_artifacts_and_result(daemon, tmp_path):
    out = tmp_path / "saved"
    run = run_cli(daemon, "submit", "toy", "--param", "count=2", "--id", "cli-1", "--out", str(out))
    assert run.returncode == 0, run.stderr
    result = json.loads((out / "result.json").read_text())
    assert (result["id"], result["state"]) == ("cli-1", "done")
    assert len((out / "x.txt").read_text().splitlines()) == 2


def test_submit_says_what_was_refused(daemon):
    run = run_cli(daemon, "submit", "toy", "--param", "cuont=2", "--wait")
    assert run.returncode == 1
    assert "params.cuont" in run.stdout
    assert "did you mean 'count'" in run.stdout


def test_submit_without_wait_ends_once_the_job_is_accepted(daemon):
    run = run_cli(daemon, "submit", "toy", "--param", "count=10000", "--json")
    assert (run.returncode, json.loads(run.stdout)["state"]) == (0, "accepted")


@pytest.mark.parametrize("word", ["count", "=3", "a.b=1=2"])
def test_submit_with_a_bad_param_is_bad_usage(daemon, word):
    run = run_cli(daemon, "submit", "toy", "--param", word, "--wait")
    assert run.returncode == (1 if word == "a.b=1=2" else 2)


def test_status_command_shows_a_running_daemon_and_one_that_is_not(daemon):
    run = run_cli(daemon, "status")
    assert run.returncode == 0, run.stderr
    assert "online" in run.stdout and "toy-model" in run.stdout
    daemon.stop()
    run = run_cli(daemon, "status", "--json")
    assert (run.returncode, json.loads(run.stdout)["status"]) == (1, {"state": "offline"})


def test_commands_say_so_where_there_is_no_broker(make_daemon):
    daemon = make_daemon(start=False)
    daemon.settings["mqtt"] = {"port": 1}
    daemon.config.write_text(yaml.safe_dump(daemon.settings))
    run = run_cli(daemon, "status")
    assert run.returncode == 1
    assert "127.0.0.1:1" in run.stderr
