"""The daemon as a service: what systemd is told, a broker that goes and comes back, no broker at all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from denoised.demo.broker import Broker


@pytest.fixture
def notified(make_daemon, tmp_path):
    """A daemon that is not started yet, and a function that reads what it tells systemd."""
    daemon = make_daemon(start=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(30)

        def told(word: str) -> str:
            while word not in (text := s.recv(4096).decode()):
                pass
            return text

        def start(**environment: str) -> None:
            env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), **environment}
            command = [sys.executable, "-m", "denoised", "run", "--config", str(daemon.config)]
            daemon.process = subprocess.Popen(command, env=env, stderr=(daemon.folder / "daemon.log").open("ab"))

        yield daemon, start, told


def test_ready_does_not_wait_for_a_broker(notified):
    daemon, start, told = notified
    daemon.settings["mqtt"]["port"] = 1
    daemon.write()
    start()
    assert "STATUS=waiting for the broker at 127.0.0.1:1" in told("READY=1")
    assert "no broker at 127.0.0.1:1" in told("no broker")
    assert daemon.stop() == 0


def test_reload_and_stop_are_announced(notified):
    daemon, start, told = notified
    start()
    told("READY=1")
    daemon.process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in told("RELOADING=1")
    told("READY=1")
    assert daemon.stop() == 0
    told("STOPPING=1")


def test_the_watchdog_is_fed_where_systemd_asks_for_it(notified):
    _, start, told = notified
    start(WATCHDOG_USEC="400000")
    told("READY=1")
    for _ in range(3):
        told("WATCHDOG=1")


def test_a_broker_that_is_killed_and_comes_back_finds_everything_again(make_daemon, tmp_path):
    daemon = make_daemon(start=False)
    with Broker("mosquitto", tmp_path) as first:
        daemon.settings["mqtt"]["port"] = port = first.port
        daemon.write()
        daemon.client.__exit__()
        daemon.connect(port)
        daemon.start()
        daemon.submit("toy", {"id": "before", "params": {}})
        daemon.result("before")
    daemon.seen.clear()
    with Broker("mosquitto", tmp_path, port):
        daemon.wait_for("status", lambda v: v["state"] == "online")
        daemon.submit("toy", {"id": "after", "params": {}})
        assert daemon.result("after")["state"] == "done"


def test_a_result_made_without_a_broker_is_delivered_when_it_is_back(make_daemon, tmp_path):
    daemon = make_daemon(start=False)
    with Broker("mosquitto", tmp_path) as first:
        daemon.settings["mqtt"]["port"] = port = first.port
        daemon.write()
        daemon.client.__exit__()
        daemon.connect(port)
        daemon.start()
        daemon.submit("toy", {"id": "alone", "params": {"count": 150}})
        daemon.wait_for("jobs/alone/event", lambda v: v.get("step", 0) > 0)
    artifact = daemon.folder / "state" / "artifacts" / "alone" / "x.txt"
    until = time.monotonic() + 30
    while not artifact.exists() and time.monotonic() < until:
        daemon.look(0.1)
    daemon.client.__exit__()
    daemon.process.send_signal(signal.SIGSTOP)  # so that this client is there before the daemon is
    with Broker("mosquitto", tmp_path, port):
        daemon.connect(port)
        daemon.process.send_signal(signal.SIGCONT)
        assert daemon.result("alone")["state"] == "done"


def test_nothing_is_written_beside_the_config(make_daemon):
    daemon = make_daemon(start=False)
    home = daemon.folder / "etc"
    home.mkdir()
    daemon.config = home / "denoised.yaml"
    daemon.write()
    before = daemon.config.stat().st_mtime_ns
    home.chmod(0o555)
    daemon.start()
    daemon.submit("toy", {"id": "ro", "params": {}})
    daemon.result("ro")
    assert [p.name for p in home.iterdir()] == ["denoised.yaml"]
    assert daemon.config.stat().st_mtime_ns == before


def test_telemetry_and_result_name_the_provider_that_really_runs(daemon):
    """Never a silent fall-back: what computes stands in every result and in the telemetry."""
    told = daemon.wait_for("telemetry", lambda v: v["worker"]["ready"])
    assert told["worker"]["providers"] == ["CPUExecutionProvider"]
    daemon.submit("toy", {"id": "p", "params": {}})
    assert daemon.result("p")["provider"] == "CPUExecutionProvider"


def test_an_artifact_larger_than_the_broker_takes_holds_up_nothing_behind_it(make_daemon, tmp_path):
    daemon = make_daemon(start=False)
    with Broker("mosquitto", tmp_path, settings="max_packet_size 20000") as small:
        daemon.settings["mqtt"]["port"] = small.port
        daemon.write()
        daemon.client.__exit__()
        daemon.connect(small.port)
        daemon.start()
        daemon.submit("toy", {"id": "big", "deliver": "mqtt", "params": {"count": 20}})
        daemon.submit("toy", {"id": "next", "deliver": "mqtt", "params": {}})
        assert daemon.result("big")["artifacts"][0]["bytes"] > 20000
        assert daemon.result("next")["state"] == "done"
        assert daemon.all("jobs/big/artifact/x.txt") == []
        assert daemon.all("jobs/next/artifact/x.txt") != []
        daemon.wait_for(
            "telemetry", lambda v: (v["outbox"]["waiting"]["result"], v["outbox"]["undeliverable"]) == (0, {"too-large": 1})
        )


def test_a_service_manager_that_is_gone_is_no_reason_to_end(make_daemon, tmp_path, monkeypatch):
    daemon = make_daemon(start=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "gone"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))  # a socket that nobody listens at any more
    daemon.start()
    daemon.submit("toy", {"id": "on", "params": {}})
    assert daemon.result("on")["state"] == "done"
