"""The life of a job, over a real broker, in the real daemon."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
from paho.mqtt import MQTTException


def test_a_job_of_a_third_partys_kind_is_accepted_run_and_answered(daemon):
    assert "toy" in daemon.wait_for("status")["kinds"]
    daemon.submit("toy", {"id": "one", "seed": 5, "params": {"count": 40}})
    result = daemon.result("one")
    assert (result["state"], result["kind"], result["seed"]) == ("done", "toy", 5)
    assert result["model"]["name"] == "toy-model"
    assert result["provider"] == "CPUExecutionProvider"
    assert result["operating_point"]["steps"] == 50
    (artifact,) = result["artifacts"]
    data = Path(artifact["path"]).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["bytes"], artifact["sha256"])
    states = [e["state"] for e in daemon.all("jobs/one/event")]
    assert states[:2] == ["accepted", "running"]
    assert any(e.get("step", 0) > 1 and e["steps"] == 50 for e in daemon.all("jobs/one/event"))


def test_response_topic_and_correlation_data_are_honoured_on_every_reply(daemon):
    daemon.submit("toy", {"id": "r", "params": {}}, response_topic=f"{daemon.base}/answers", correlation=b"\x00\xff7")
    daemon.wait_for("answers", lambda v: v["state"] == "done")
    answers = [(c, v["state"]) for topic, c, v in daemon.replies if topic == "answers"]
    assert {c for c, _ in answers} == {b"\x00\xff7"}
    assert [s for _, s in answers][0] == "accepted"
    assert daemon.result("r")["state"] == "done"


@pytest.mark.parametrize("topic", ["$SYS/x", "a/+/b", "#"])
def test_a_response_topic_that_must_not_be_published_to_is_not(daemon, topic):
    try:
        daemon.submit("toy", {"id": "x", "params": {"count": "no"}}, response_topic=topic)
    except MQTTException:
        pytest.skip("this client library does not send such a topic")
    assert daemon.result("x")["error"]["code"] == "bad-request"


def test_the_same_request_again_is_answered_and_never_run_twice(daemon):
    daemon.submit("toy", {"id": "again", "params": {"count": 1}})
    first = daemon.result("again")
    daemon.submit("toy", {"params": {"count": 1}, "id": "again"}, response_topic=f"{daemon.base}/again")
    assert daemon.wait_for("again") == first
    assert len(daemon.all("jobs/again/result")) == 1
    assert [e["state"] for e in daemon.all("jobs/again/event")].count("accepted") == 1


def test_the_same_id_with_other_content_is_a_conflict_and_the_job_is_undisturbed(daemon):
    daemon.submit("toy", {"id": "c", "params": {"count": 3}})
    daemon.submit("toy", {"id": "c", "params": {"count": 1}})
    refused = daemon.wait_for("jobs/refused")
    assert (refused["id"], refused["error"]["code"], refused["error"]["field"]) == ("c", "conflict", "id")
    assert len(daemon.result("c")["output"]["items"]) == 3
    daemon.submit("toy", {"id": "c", "params": {"count": 1}}, response_topic=f"{daemon.base}/late")
    assert daemon.wait_for("late")["error"]["code"] == "conflict"
    assert len(daemon.all("jobs/c/result")) == 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(daemon):
    for name, seed in (("s1", 7), ("s2", 7), ("s3", 8)):
        daemon.submit("toy", {"id": name, "seed": seed, "params": {}})
    sums = [daemon.result(name)["artifacts"][0]["sha256"] for name in ("s1", "s2", "s3")]
    assert sums[0] == sums[1] != sums[2]


def test_cancel_stops_a_running_job_at_the_next_step(daemon):
    daemon.submit("toy", {"id": "long", "params": {"count": 10_000}})
    daemon.wait_for("jobs/long/event", lambda v: v.get("step", 0) > 0)
    daemon.client.publish(f"{daemon.base}/jobs/long/cancel", b"")
    assert daemon.result("long")["state"] == "cancelled"
    assert not (daemon.folder / "state" / "artifacts" / "long").exists()


def test_cancel_of_a_waiting_job_and_of_nothing(daemon):
    daemon.submit("toy", {"id": "first", "params": {"count": 10_000}})
    daemon.submit("toy", {"id": "second", "params": {}})
    for name in ("second", "nobody", "first"):
        daemon.client.publish(f"{daemon.base}/jobs/{name}/cancel", b"any")
    assert daemon.result("second")["state"] == "cancelled"
    assert daemon.result("first")["state"] == "cancelled"


def test_a_job_of_higher_priority_preempts_and_the_other_ends_in_the_same_bytes(daemon):
    daemon.submit("toy", {"id": "alone", "seed": 1, "params": {"count": 60}})
    alone = daemon.result("alone")["artifacts"][0]["sha256"]
    daemon.submit("toy", {"id": "low", "seed": 1, "priority": 2, "params": {"count": 60}})
    daemon.wait_for("jobs/low/event", lambda v: v.get("step", 0) > 0)
    daemon.submit("toy", {"id": "high", "priority": 8, "params": {}})
    daemon.result("high")
    daemon.result("low")
    ended = [name for name, _ in daemon.seen if name in ("jobs/low/result", "jobs/high/result")]
    assert ended == ["jobs/high/result", "jobs/low/result"]
    assert daemon.wait_for("jobs/low/event", lambda v: v["state"] == "paused")["reason"] == "preempted"
    assert daemon.result("low")["artifacts"][0]["sha256"] == alone


def test_a_deadline_that_passes_ends_the_job_as_expired(daemon):
    daemon.submit("toy", {"id": "slow", "deadline_ms": 300, "params": {"count": 10_000}})
    result = daemon.result("slow")
    assert (result["state"], result["error"]["code"]) == ("expired", "deadline")


def test_message_expiry_bounds_the_wait_in_the_queue(daemon):
    daemon.submit("toy", {"id": "front", "params": {"count": 10_000}})
    daemon.submit("toy", {"id": "stale", "params": {}}, expiry_s=1)
    assert daemon.result("stale")["state"] == "expired"
    daemon.client.publish(f"{daemon.base}/jobs/front/cancel", b"")


def test_artifacts_come_over_mqtt_before_the_result_where_asked_for(daemon):
    daemon.submit("toy", {"id": "m", "deliver": "mqtt", "params": {}})
    artifact = daemon.result("m")["artifacts"][0]
    names = [name for name, _ in daemon.seen if name.startswith("jobs/m/") and not name.endswith("event")]
    assert names == ["jobs/m/artifact/x.txt", "jobs/m/result"]
    (data,) = daemon.all("jobs/m/artifact/x.txt")
    assert hashlib.sha256(data).hexdigest() == artifact["sha256"]


def test_a_worker_that_is_killed_under_a_job_is_replaced_and_the_job_done(daemon):
    daemon.submit("toy", {"id": daemon.id, "params": {"die": "once"}})
    assert daemon.result(daemon.id)["state"] == "done"


def test_a_job_that_kills_its_worker_twice_is_given_up_while_others_go_on(daemon):
    daemon.submit("toy", {"id": "deadly", "params": {"die": "always"}})
    daemon.submit("toy", {"id": "fine", "params": {}})
    result = daemon.result("deadly")
    assert (result["state"], result["error"]["code"]) == ("failed", "engine")
    assert daemon.result("fine")["state"] == "done"


def test_a_bug_in_somebodys_kind_fails_the_job_and_nothing_else(daemon):
    daemon.submit("toy", {"id": "b1", "params": {"die": "raise"}})
    daemon.submit("toy", {"id": "b2", "params": {"die": "check"}})
    daemon.submit("toy", {"id": "b3", "params": {}})
    assert daemon.result("b1")["error"] == {"code": "internal", "message": "RuntimeError: a bug in work"}
    assert daemon.result("b2")["error"]["code"] == "internal"
    assert daemon.result("b3")["state"] == "done"


def test_accepted_jobs_survive_a_killed_daemon(daemon):
    for n in range(4):
        daemon.submit("toy", {"id": f"k{n}", "seed": 1, "params": {"count": 3}})
    daemon.wait_for("jobs/k3/event", lambda v: v["state"] == "accepted")
    daemon.kill()
    daemon.wait_for("status", lambda v: v["state"] == "offline")
    daemon.start()
    assert {daemon.result(f"k{n}")["artifacts"][0]["sha256"] for n in range(4)} == {
        daemon.result("k0")["artifacts"][0]["sha256"]
    }
    assert all(len(daemon.all(f"jobs/k{n}/result")) == 1 for n in range(4))


def test_a_clean_stop_says_offline_and_keeps_what_waits(daemon):
    daemon.submit("toy", {"id": "w", "params": {"count": 20}})
    daemon.wait_for("jobs/w/event", lambda v: v["state"] == "running")
    assert daemon.stop() == 0
    daemon.wait_for("status", lambda v: v == {"state": "offline"})
    daemon.seen.clear()
    daemon.start()
    assert daemon.result("w")["state"] == "done"


def test_the_worker_ends_with_its_supervisor(daemon):
    daemon.wait_for("telemetry", lambda v: v["worker"]["ready"])
    (worker,) = daemon.children("denoised-worker")
    daemon.kill()
    until = time.monotonic() + 20
    while (state := _stat(Path(f"/proc/{worker}"))[0]) not in ("gone", "Z") and time.monotonic() < until:
        daemon.look(0.05)
    assert state in ("gone", "Z")


def _stat(process: Path) -> tuple[str, int]:
    """State letter and parent of a process."""
    try:
        state, parent = process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[:2]
        return state, int(parent)
    except (OSError, IndexError):
        return "gone", 0


def test_a_full_queue_answers_overloaded(make_daemon):
    daemon = make_daemon(queue={"max_jobs": 2})
    for n in range(4):
        daemon.submit("toy", {"id": f"q{n}", "params": {"count": 10_000}})
    assert daemon.result("q2")["error"]["code"] == "overloaded"
    assert daemon.result("q3")["error"]["code"] == "overloaded"


def test_the_supervisor_imports_no_library_that_computes(daemon):
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "sqlite" in maps
    for library in ("numpy", "onnxruntime", "cv2", "tensorrt"):
        assert library not in maps, library


@pytest.fixture
def careful(make_daemon):
    """A daemon that writes checkpoints many times a second, as if a crash was due each minute."""
    return make_daemon(checkpoints={"expected_uptime": 0.05, "write_budget_mb_per_day": 10_000_000})


def undisturbed(daemon, count):
    daemon.submit("toy", {"id": "undisturbed", "seed": 9, "params": {"count": count}})
    result = daemon.result("undisturbed")
    assert "resumed_steps" not in result
    return result["artifacts"][0]["sha256"]


def half_way(daemon, name, count):
    daemon.submit("toy", {"id": name, "seed": 9, "params": {"count": count}})
    daemon.wait_for(f"jobs/{name}/event", lambda v: v.get("item", 0) >= count // 3)


def test_a_job_whose_worker_is_killed_goes_on_where_it_was_and_ends_in_the_same_bytes(careful):
    sha = undisturbed(careful, 60)
    half_way(careful, "w", 60)
    (worker,) = careful.children("denoised-worker")
    os.kill(worker, signal.SIGKILL)
    result = careful.result("w")
    assert result["artifacts"][0]["sha256"] == sha
    assert result["resumed_steps"] >= 50


def test_a_job_goes_on_where_it_was_after_the_daemon_was_killed(careful):
    sha = undisturbed(careful, 60)
    half_way(careful, "d", 60)
    careful.kill()
    careful.start()
    result = careful.result("d")
    assert result["artifacts"][0]["sha256"] == sha
    assert result["resumed_steps"] >= 50
    assert list((careful.folder / "state" / "work").iterdir()) == []


def test_a_clean_stop_writes_down_what_is_in_hand(daemon):
    sha = undisturbed(daemon, 60)
    half_way(daemon, "s", 60)
    assert daemon.stop() == 0
    daemon.seen.clear()
    daemon.start()
    result = daemon.result("s")
    assert result["artifacts"][0]["sha256"] == sha
    assert result["resumed_steps"] >= 20 * 50


def test_a_short_job_writes_no_checkpoint(daemon):
    daemon.submit("toy", {"id": "short", "params": {}})
    daemon.result("short")
    assert not (daemon.folder / "state" / "work").exists()


def test_a_worker_that_hangs_is_replaced_and_the_job_that_did_it_twice_given_up(make_daemon):
    daemon = make_daemon(engine={"patience": 0.5})
    daemon.submit("toy", {"id": "hung", "params": {"die": "hang"}})
    daemon.submit("toy", {"id": "fine", "params": {}})
    error = daemon.result("hung")["error"]
    assert (error["code"], "2 workers died" in error["message"]) == ("engine", True)
    assert daemon.result("fine")["state"] == "done"
    assert "has said nothing" in daemon.logged()
