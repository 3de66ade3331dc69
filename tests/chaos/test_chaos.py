"""Kills at random moments, and the promise afterwards: one final result for each job, and the bytes of an undisturbed run.

`make chaos` runs many rounds (CHAOS_ROUNDS, CHAOS_SEED); a few run with the tests. In each round jobs are sent while the
worker, the daemon, both or the broker are killed with SIGKILL. A requester that saw no answer sends its request again, as
MQTT asks of it. What must hold: every id gets its result, all copies of it are the same, equal jobs have equal artifacts,
and the retained status tells the truth.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from denoised.demo.broker import Broker

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
JOBS = 8
PATIENCE = 120.0


class Chaos:
    """A daemon on a broker of its own, both of which can be killed, and everything that was seen on the bus."""

    def __init__(self, daemon, folder: Path):
        self.daemon, self.folder = daemon, folder
        self.broker = Broker("mosquitto", folder)
        self.broker.__enter__()
        daemon.settings["mqtt"]["port"] = self.broker.port
        daemon.settings["checkpoints"] = {"expected_uptime": 0.5, "write_budget_mb_per_day": 10_000_000}
        daemon.write()
        daemon.client.__exit__()
        daemon.connect(self.broker.port)
        daemon.start()

    def kill(self, what: str) -> None:
        """worker, daemon, both or broker; what is needed is started again."""
        if what in ("worker", "both"):
            for pid in self._workers():
                os.kill(pid, signal.SIGKILL)
        if what in ("daemon", "both"):
            self.daemon.kill()
            self.daemon.start()
        if what == "broker":
            self.broker.kill()
            self.broker = Broker("mosquitto", self.folder, self.broker.port)
            self.broker.__enter__()

    def _workers(self) -> list[int]:
        children = Path(f"/proc/{self.daemon.process.pid}/task/{self.daemon.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def results(self, job_id: str) -> list[dict]:
        return self.daemon.all(f"jobs/{job_id}/result")


@pytest.fixture
def chaos(make_daemon, tmp_path):
    made = Chaos(make_daemon(start=False), tmp_path)
    yield made
    made.broker.__exit__()


def request(n: int) -> dict:
    """Jobs of three sizes and two seeds: six kinds of bytes in all."""
    return {"seed": n % 2, "priority": n % 7, "params": {"count": (1, 12, 40)[n % 3]}}


def content(result: dict) -> str:
    return result["artifacts"][0]["sha256"]


def test_whatever_is_killed_each_job_has_one_result_and_its_own_bytes(chaos):
    daemon, rng = chaos.daemon, random.Random(SEED)
    for n in range(6):
        daemon.submit("toy", {"id": f"calm-{n}", **request(n)})
    calm = {n: content(daemon.result(f"calm-{n}")) for n in range(6)}
    for round_ in range(ROUNDS):
        jobs = {f"r{round_}-{n}": n for n in range(JOBS)}
        for name, n in jobs.items():
            daemon.submit("toy", {"id": name, **request(n)})
        for _ in range(rng.randint(1, 3)):
            daemon.look(rng.uniform(0.0, 0.8))
            chaos.kill(rng.choice(["worker", "worker", "daemon", "both", "broker"]))
        until, again_at = time.monotonic() + PATIENCE, time.monotonic() + 3
        while missing := [name for name in jobs if not chaos.results(name)]:
            assert time.monotonic() < until, f"round {round_}: no result for {missing}; {daemon.logged()[-3000:]}"
            daemon.look(0.2)
            if time.monotonic() >= again_at:
                again_at = time.monotonic() + 3
                for name in missing:
                    daemon.submit("toy", {"id": name, **request(jobs[name])})
        for name, n in jobs.items():
            copies = {json.dumps(result, sort_keys=True) for result in chaos.results(name)}
            assert len(copies) == 1, f"round {round_}: {name} ended in {len(copies)} different results: {copies}"
            (result,) = map(json.loads, copies)
            assert result["state"] == "done", result
            assert content(result) == calm[n % 6], f"round {round_}: {name} has other bytes than an undisturbed run"
        assert daemon.wait_for("status")["state"] in ("online", "offline")
        daemon.seen = [(topic, value) for topic, value in daemon.seen if topic == "status"][-1:]
    assert daemon.stop() == 0
    daemon.wait_for("status", lambda v: v == {"state": "offline"})
