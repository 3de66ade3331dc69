"""What the policy lets run, what is promised, what it took: the real daemon over a real broker."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest


def accepted(daemon, name):
    return daemon.wait_for(f"jobs/{name}/event", lambda v: v["state"] == "accepted")


def run(daemon, name, count=1, **request):
    daemon.submit("toy", {"id": name, "params": {"count": count}, **request})
    return daemon.result(name)


def seconds(stamp):
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


# ---- promises and deadlines ---------------------------------------------------------------------------------------------


def test_a_job_like_one_that_has_run_is_promised_its_point_finish_and_joules(daemon):
    first = run(daemon, "first", count=20)
    assert "promise" not in accepted(daemon, "first")  # nothing was known of it
    second = run(daemon, "second", count=20)
    promise = accepted(daemon, "second")["promise"]
    assert promise["operating_point"] == second["operating_point"]
    assert promise["basis"] == "estimate"
    assert promise["run_ms"] == pytest.approx(first["run_ms"], rel=0.5)
    assert promise["energy_j"] > 0
    assert seconds(promise["finish"]) > seconds(accepted(daemon, "second")["time"])
    told = daemon.wait_for("telemetry", lambda v: sum(v["governor"]["promises"].values()) == 2)["governor"]["promises"]
    assert told["made"] == told["kept"] + told["broken"] == 1


def test_a_job_behind_others_is_promised_a_later_finish(daemon):
    run(daemon, "first", count=50)
    daemon.submit("toy", {"id": "long", "params": {"count": 5000}})
    daemon.submit("toy", {"id": "behind", "params": {"count": 50}})
    daemon.submit("toy", {"id": "before", "priority": 9, "params": {"count": 50}})
    finish = {name: seconds(accepted(daemon, name)["promise"]["finish"]) for name in ("long", "behind", "before")}
    assert finish["before"] < finish["long"] < finish["behind"]


def test_a_deadline_that_even_the_fastest_point_cannot_meet_is_refused_with_the_earliest_time(daemon):
    took_ms = run(daemon, "first", count=100)["run_ms"]
    refused = run(daemon, "vain", count=5000, deadline_ms=took_ms)
    assert (refused["state"], refused["error"]["code"], refused["error"]["field"]) == ("failed", "deadline", "deadline_ms")
    assert seconds(refused["error"]["earliest"]) > time.time() + took_ms / 1000
    assert refused["error"]["earliest"] in refused["error"]["message"]
    assert not daemon.all("jobs/vain/event")


def test_a_job_of_which_nothing_is_known_is_never_refused_for_its_deadline(daemon):
    assert run(daemon, "unknown", count=10_000, deadline_ms=100)["state"] == "expired"


# ---- anytime ------------------------------------------------------------------------------------------------------------


def test_an_anytime_job_delivers_the_best_so_far_at_its_deadline_and_says_what_it_is_worth(daemon):
    run(daemon, "warm")
    result = run(daemon, "part", count=200, deadline_ms=2000, anytime=True)
    assert result["state"] == "done"
    assert 0 < result["quality_tier"] < 1
    assert len(result["output"]["items"]) == 200
    (artifact,) = result["artifacts"]
    lines = Path(artifact["path"]).read_text().splitlines()
    assert len(lines) == 200 and {len(line) for line in lines} == {256 * 8}


def test_an_anytime_job_that_has_the_time_is_whole_and_the_same_bytes(daemon):
    plain = run(daemon, "plain", count=3, seed=4)
    whole = run(daemon, "whole", count=3, seed=4, anytime=True, deadline_ms=60_000)
    assert whole["quality_tier"] == 1.0
    assert whole["artifacts"][0]["sha256"] == plain["artifacts"][0]["sha256"]
    assert "quality_tier" not in plain


# ---- energy -------------------------------------------------------------------------------------------------------------


def test_every_result_says_what_it_took_how_that_is_known_and_how_well(daemon):
    result = run(daemon, "a", count=200)
    energy = result["energy"]
    assert result["energy_j"] > energy["idle_j"] > 0
    assert energy["method"] in ("rail", "model", "estimate")
    assert energy["per_sample_j"] == pytest.approx(result["energy_j"] / 200, rel=0.01)
    assert 0 < energy["uncertainty_j"] <= result["energy_j"]


def test_the_days_and_months_energy_goes_on_after_a_restart(daemon):
    run(daemon, "a", count=200)
    before = daemon.wait_for("telemetry", lambda v: v["energy"]["today_j"] > 1)["energy"]
    assert daemon.stop() == 0
    daemon.seen.clear()
    daemon.start()
    after = daemon.wait_for("telemetry")["energy"]
    assert after["today_j"] >= before["today_j"]
    assert after["month_j"] >= after["today_j"]


# ---- when bulk work waits -----------------------------------------------------------------------------------------------


def waits(daemon, name, why):
    """A bulk job that does not start and says why, while one with a deadline does."""
    daemon.submit("toy", {"id": name, "params": {}})
    assert why in daemon.wait_for(f"jobs/{name}/event", lambda v: "reason" in v)["reason"]
    assert run(daemon, f"{name}-urgent", deadline_ms=60_000)["state"] == "done"
    assert why in daemon.wait_for("telemetry", lambda v: why in v["governor"]["reason"])["governor"]["reason"]
    assert not daemon.all(f"jobs/{name}/result")


def test_bulk_work_waits_in_quiet_hours_until_they_are_lifted(make_daemon):
    now = datetime.now()
    hours = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    daemon = make_daemon(policy={"quiet_hours": [hours]})
    waits(daemon, "bulk", f"quiet hours until {now + timedelta(hours=2):%H:%M}")
    daemon.settings["policy"] = {}
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.result("bulk")["state"] == "done"


def test_bulk_work_waits_where_the_days_energy_is_not_more_than_the_board_takes_at_rest(make_daemon):
    waits(make_daemon(policy={"energy_budget_j_per_day": 1}), "bulk", "the energy budget of 1 J a day is not more than")


def test_bulk_work_waits_for_the_plants_signal_and_a_running_job_makes_room_for_it(make_daemon):
    daemon = make_daemon(start=False)
    topic = f"plant-{daemon.id}/price"
    daemon.settings["policy"] = {"signal": {"topic": topic, "field": "now", "above": 0.3}}
    daemon.write()
    daemon.start()
    whole = run(daemon, "whole", count=80, seed=3)["artifacts"][0]["sha256"]
    daemon.submit("toy", {"id": "bulk", "seed": 3, "params": {"count": 80}})
    daemon.wait_for("jobs/bulk/event", lambda v: v.get("item", 0) > 20)
    daemon.client.publish(topic, json.dumps({"now": 0.41}).encode())
    laid_aside = daemon.wait_for("jobs/bulk/event", lambda v: v["state"] == "accepted" and "reason" in v)
    assert laid_aside["reason"] == f"{topic} is 0.41, above 0.3"
    waits(daemon, "other", "above 0.3")
    daemon.client.publish(topic, json.dumps({"now": 0.2}).encode())
    assert daemon.result("bulk")["artifacts"][0]["sha256"] == whole
    assert daemon.result("other")["state"] == "done"


def test_a_background_kind_runs_when_nothing_else_waits_whatever_its_priority(make_daemon):
    daemon = make_daemon(policy={"background_kinds": ["toy"]})
    daemon.submit("toy", {"id": "slow", "priority": 9, "params": {"count": 200}})
    assert daemon.result("slow")["state"] == "done"


# ---- heat, on a simulated board -----------------------------------------------------------------------------------------

SIMULATED = {"kind": "simulated", "preset": "generic", "speedup": 20}


def reload(daemon, **policy):
    daemon.settings["policy"] = policy
    daemon.write()
    daemon.seen.clear()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("telemetry", lambda v: v["reload"])


def test_a_job_that_has_to_cool_is_paused_for_heat_and_ends_in_the_same_bytes(make_daemon):
    daemon = make_daemon(board=SIMULATED)
    whole = run(daemon, "whole", count=80, seed=3)["artifacts"][0]["sha256"]
    daemon.submit("toy", {"id": "hot", "seed": 3, "params": {"count": 80}})
    daemon.wait_for("jobs/hot/event", lambda v: v.get("item", 0) > 10)
    reload(daemon, temperature_limit_c=30)  # colder than the board at rest
    paused = daemon.wait_for("jobs/hot/event", lambda v: v["state"] == "paused")
    assert paused["reason"] == "thermal"
    governor = daemon.wait_for("telemetry", lambda v: v["governor"]["duty"] == 0)["governor"]
    assert governor["headroom_k"] < 0 and governor["limit_c"] == 30 and not governor["share"]
    assert governor["reason"].startswith("heat")
    reload(daemon)
    assert daemon.result("hot")["artifacts"][0]["sha256"] == whole


def test_an_anytime_job_is_delivered_as_it_is_when_it_has_to_cool(make_daemon):
    daemon = make_daemon(board=SIMULATED)
    daemon.submit("toy", {"id": "hot", "anytime": True, "params": {"count": 200}})
    daemon.wait_for("jobs/hot/event", lambda v: v.get("item", 0) > 10)
    reload(daemon, temperature_limit_c=30)
    result = daemon.result("hot")
    assert result["state"] == "done" and 0 < result["quality_tier"] < 1


def test_live_groups_and_their_windows_are_never_paced(make_daemon):
    daemon = make_daemon(start=False, board=SIMULATED, policy={"temperature_limit_c": 30})
    tags = {tag: {"topic": f"plant-{daemon.id}/{tag}"} for tag in ("a", "b")}
    daemon.settings["sensors"] = {"line": {"period": 0.5, "window": 48, "max_latency": 4.0, "tags": tags}}
    daemon.write()
    daemon.start()
    daemon.submit("toy", {"id": "bulk", "params": {"count": 300}})
    until = time.monotonic() + 25
    while time.monotonic() < until and not any(s["quality"] == "imputed" for s in daemon.all("sensors/line/b")):
        daemon.client.publish(f"plant-{daemon.id}/a", b"1.5")
        if time.monotonic() < until - 22:
            daemon.client.publish(f"plant-{daemon.id}/b", b"2.5")
        daemon.look(0.4)
    assert any(s["quality"] == "imputed" for s in daemon.all("sensors/line/b"))
    assert not daemon.all("jobs/bulk/result")


def test_without_the_governor_jobs_run_as_they_ship_however_hot_it_is(make_daemon):
    daemon = make_daemon(board=SIMULATED, policy={"governor": "off", "temperature_limit_c": 30})
    result = run(daemon, "a", count=20)
    assert (result["state"], result["operating_point"]["steps"]) == ("done", 50)
    assert daemon.wait_for("telemetry")["governor"]["reason"] == "off"


def test_what_was_learnt_of_the_board_and_of_its_jobs_is_kept(make_daemon):
    daemon = make_daemon(board=SIMULATED)
    run(daemon, "a", count=20)
    assert daemon.stop() == 0
    kept = json.loads((daemon.folder / "state" / "governor.json").read_text())
    assert kept["board"] and len(kept["costs"]) == 1
    (daemon.folder / "state" / "energy.json").write_text("[damaged")
    daemon.seen.clear()
    daemon.start()
    run(daemon, "b", count=20)
    assert accepted(daemon, "b")["promise"]["basis"] == "estimate"


# ---- the supply ---------------------------------------------------------------------------------------------------------


def test_a_gateway_that_went_off_under_load_starts_with_less_and_says_so(daemon):
    daemon.submit("toy", {"id": "long", "params": {"count": 5000}})
    daemon.wait_for("jobs/long/event", lambda v: v.get("item", 0) > 0)
    mark = daemon.folder / "state" / "under-load.json"
    until = time.monotonic() + 30
    while not mark.exists() and time.monotonic() < until:
        daemon.look(0.1)
    daemon.kill()
    mark.write_text(json.dumps({"boot_id": "another boot"}))
    daemon.start()
    (problem,) = daemon.wait_for("status", lambda v: v["state"] == "online")["problems"]
    assert "went off under load 1 time" in problem["message"] and "80%" in problem["message"]
    assert "went off under load" in daemon.logged()
    daemon.wait_for("telemetry", lambda v: v["governor"]["reason"].startswith(("power", "ramp")))


def test_a_daemon_that_is_killed_or_stopped_is_no_weak_supply(daemon):
    daemon.submit("toy", {"id": "long", "params": {"count": 5000}})
    mark = daemon.folder / "state" / "under-load.json"
    until = time.monotonic() + 30
    while not mark.exists() and time.monotonic() < until:
        daemon.look(0.1)
    daemon.kill()
    daemon.start()
    assert daemon.wait_for("status", lambda v: v["state"] == "online")["problems"] == []
    assert daemon.stop() == 0
    assert not mark.exists()


def test_on_a_board_that_is_too_hot_bulk_work_waits_says_why_and_stays_waiting(make_daemon):
    daemon = make_daemon(board={**SIMULATED, "ambient_c": 80})
    daemon.submit("toy", {"id": "hot", "params": {}})
    told = daemon.wait_for("jobs/hot/event", lambda v: v.get("reason", "").startswith(("heat", "thermal")))
    daemon.look(3.0)  # a minute of the board
    assert not daemon.all("jobs/hot/result")
    assert daemon.logged().count("bulk jobs go on") == 0, told


# ---- made ready before it is wanted -------------------------------------------------------------------------------------


def test_a_worker_that_was_unloaded_is_there_before_the_frame_of_a_job_is(make_daemon, tmp_path):
    """The camera never answers: what was started was not started by a job that could run."""
    fifo = tmp_path / "camera.png"
    os.mkfifo(fifo)
    daemon = make_daemon(engine={"unload_after": 0.5}, cameras={"slow": {"source": str(fifo)}})
    daemon.wait_for("telemetry", lambda v: v["worker"]["state"] == "unloaded")
    daemon.seen.clear()
    daemon.submit("toy", {"id": "framed", "params": {"camera": "slow"}})
    daemon.wait_for("telemetry", lambda v: v["worker"]["ready"])
    assert not daemon.all("jobs/framed/result")
