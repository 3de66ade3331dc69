"""The desk alone, where two messages cross: what the worker says while it does not know yet what was asked of it.

The worker is a list of what it was sent; when it answers is the test's to choose.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from denoised.config import typed
from denoised.config.tree import Config
from denoised.daemon.core.health import Worker, hangs
from denoised.daemon.core.job import Job
from denoised.daemon.desk import Desk
from denoised.daemon.disk import Disk
from denoised.daemon.outbox import Outbox
from denoised.daemon.spool import Spool


class Child:
    """The part of `Link` that the desk uses."""

    ready = True

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append((message["type"], message["id"]))


class Line:
    """A bus without a broker: everything waits in the outbox."""

    connected, max_packet, receive_maximum = False, None, None


@pytest.fixture
def desk(tmp_path):
    config = typed.read({"state_dir": str(tmp_path), "gateway": {"id": "g"}}, Config)
    spool = Spool(tmp_path / "spool.db")
    disk = Disk([tmp_path], 0)
    line: Any = Line()
    worker: Any = Child()
    yield Desk(config, spool, Outbox(spool, line), worker, worker, disk)
    spool.close()


def job(name, priority=4, **more):
    return Job(name, "k", {}, 0, 1, 1.0, priority=priority, digest=name, **more)


def enter(desk, *jobs, now=1.0):
    desk.accept(jobs, now)
    for j in jobs:
        desk.enter(j, now)


def says(desk, what, name, now, **more):
    desk.from_worker({"type": what, "id": name, "checkpoint_bytes": 0, "run_ms": 5, "about": "m", **more}, now)


def step(desk, name, n, now, rested_s=0.0):
    desk.from_worker({"type": "step", "id": name, "step": n, "steps": 8, "item": 0, "in_hand": 1, "rested_s": rested_s}, now)


def result(desk, name):
    known = desk._spool.find(name)
    return known and known.result


def test_a_cancel_that_crosses_parked_ends_the_job(desk):
    enter(desk, job("a"))
    desk.dispatch(1.0)
    desk.pause("a", 2.0)
    desk.cancel("a", 2.0)
    says(desk, "parked", "a", 2.1)
    assert result(desk, "a")["state"] == "cancelled"
    assert desk.entries == {}


def test_a_deadline_that_crosses_parked_ends_the_job_as_expired(desk):
    enter(desk, job("a", deadline_at=2.0))
    desk.dispatch(1.0)
    desk.pause("a", 1.5)
    desk.dispatch(2.0)
    says(desk, "parked", "a", 2.1)
    assert result(desk, "a")["error"]["code"] == "deadline"


def test_a_pause_that_crosses_a_fault_leaves_the_job_paused_and_it_can_be_resumed(desk):
    enter(desk, job("a"))
    desk.dispatch(1.0)
    desk.pause("a", 2.0)
    says(desk, "failed", "a", 2.1, transient=True, error={"code": "engine", "message": "away"})
    assert (desk.entries["a"].state, desk.entries["a"].reason) == ("paused", "operator")
    assert desk.next(99.0) is None
    desk.resume("a", 99.0)
    assert desk.next(99.0) is desk.entries["a"]


def test_a_pause_of_a_preempted_job_that_parks_while_a_third_one_comes_is_told_and_not_lost(desk):
    enter(desk, job("low", 1))
    desk.dispatch(1.0)
    desk.pause("low", 1.5)
    enter(desk, job("high", 9))
    desk.dispatch(2.0)
    assert desk.entries["low"].state == "paused"
    says(desk, "parked", "low", 2.1)
    assert (desk.entries["low"].state, desk.entries["low"].reason) == ("paused", "operator")
    assert [e.job.id for e in desk.stack] == ["high"]


def test_the_time_that_a_job_was_laid_aside_is_no_step(desk):
    """A job that goes on from step 40 after ten minutes has not made a step of ten minutes: hangs must still be seen."""
    enter(desk, job("low", 1))
    desk.dispatch(1.0)
    step(desk, "low", 40, 1.5)
    step(desk, "low", 41, 1.6)
    enter(desk, job("high", 9), now=2.0)
    desk.dispatch(2.0)
    step(desk, "high", 0, 2.0)
    says(desk, "done", "high", 602.0)
    step(desk, "low", 42, 602.1)
    step(desk, "low", 43, 602.2)
    assert desk.longest_step < 1.0
    assert hangs(Worker("busy", 31.0), 30.0, desk.longest_step)


def test_a_rest_is_no_step(desk):
    """A paced job that rests for a minute after each step must still be seen to hang."""
    enter(desk, job("slow"))
    desk.dispatch(1.0)
    step(desk, "slow", 1, 2.0)
    step(desk, "slow", 1, 32.0, rested_s=30.0)
    step(desk, "slow", 2, 63.0, rested_s=60.0)
    assert desk.longest_step == pytest.approx(1.0)


def test_an_anytime_job_is_hurried_at_its_deadline_and_not_cancelled(desk):
    enter(desk, job("a", deadline_at=2.0, anytime=True))
    desk.dispatch(1.0)
    desk.dispatch(2.0)
    assert desk._worker.sent[-1] == ("hurry", "a")
    says(desk, "done", "a", 2.1, artifacts=[], output={}, quality_tier=0.4)
    assert (result(desk, "a")["state"], result(desk, "a")["quality_tier"]) == ("done", 0.4)


def test_an_anytime_job_that_has_not_begun_at_its_deadline_is_expired(desk):
    desk._worker.ready = False
    enter(desk, job("a", deadline_at=2.0, anytime=True))
    desk.dispatch(2.0)
    assert result(desk, "a")["state"] == "expired"


def test_a_repeated_request_is_answered_when_the_result_is_stored_and_not_before(desk):
    enter(desk, job("a"))
    desk.dispatch(1.0)
    desk._spool._db.execute("PRAGMA query_only = 1")  # SQLite then refuses each write as it does on a read-only disk
    says(desk, "done", "a", 2.0, artifacts=[], output={})
    assert desk.digest("a") == "a"
    desk.results.answer("a", ("answers", b"c"), None, 2.1)
    assert desk.results.unstored() == {"a"}
    desk._spool._db.execute("PRAGMA query_only = 0")
    desk.results.store(3.0)
    told = {m.topic: json.loads(m.payload) for _, m in desk._spool.outgoing(0, 9)}
    assert told["answers"] == told["denoised/g/jobs/a/result"] == result(desk, "a")


def test_a_job_whose_camera_is_no_more_in_the_config_is_told_so(desk):
    desk.config = typed.read({"cameras": {"line": {"source": "x"}}, "state_dir": desk.config.state_dir}, Config)
    enter(desk, job("a", camera="line"), job("b", camera="line"))
    desk.from_cameras({"type": "frame", "id": "a", "path": "p"}, 1.0)
    desk.config = dataclasses.replace(desk.config, cameras={})
    desk.drop_cameras(2.0)
    assert result(desk, "b")["error"]["code"] == "input"
    assert list(desk.entries) == ["a"]


def test_artifacts_of_a_job_that_is_not_delivered_are_nobodys_to_delete(desk):
    enter(desk, job("a"))
    desk.dispatch(1.0)
    says(desk, "done", "a", 2.0, artifacts=[], output={})
    assert desk._spool.undelivered() == {"a"}


def test_a_result_whose_message_the_disk_has_lost_is_told_again(desk):
    enter(desk, job("a"))
    desk.dispatch(1.0)
    says(desk, "done", "a", 2.0, artifacts=[], output={})
    ((seq, message),) = desk._spool.outgoing(0, 9)
    desk._spool.sent([seq])
    desk._spool.settle()
    desk._spool.untold = ["a"]
    desk.recover(3.0)
    ((_, again),) = desk._spool.outgoing(0, 9)
    assert (again.topic, again.payload) == (message.topic, message.payload)


def test_every_waiting_bulk_job_is_told_why_and_figures_alone_are_not_told_again(desk):
    enter(desk, job("a"), job("b"), job("urgent", deadline_at=99.0))
    desk.hold("quiet hours until 06:00", False, 2.0)
    assert [desk.entries[name].reason for name in ("a", "b", "urgent")] == ["quiet hours until 06:00"] * 2 + [None]
    desk.hold("heat: holds 78.0 C", True, 3.0)
    desk.hold("heat: holds 77.9 C", True, 4.0)
    assert {desk.entries[name].reason for name in ("a", "b")} == {"heat: holds 78.0 C"}
    desk.hold(None, False, 5.0)
    assert {desk.entries[name].reason for name in ("a", "b")} == {None}


def test_a_job_that_its_worker_died_under_can_be_laid_aside_again(desk):
    enter(desk, job("a"))
    desk.dispatch(1.0)
    desk.hold("quiet hours", False, 2.0)
    desk.worker_restarted(2.1)
    desk.hold(None, False, 3.0)
    desk.dispatch(3.0)
    desk.hold("quiet hours", False, 4.0)
    assert [what for what, _ in desk._worker.sent] == ["run", "pause", "run", "pause"]


def test_bulk_work_that_is_held_for_heat_is_still_what_would_come_next(desk):
    enter(desk, job("a"))
    desk.hold("heat", True, 2.0)
    assert desk.next(2.0) is None and desk.first_waiting(2.0) is desk.entries["a"]
    desk.hold("quiet hours", False, 3.0)
    assert desk.first_waiting(3.0) is None
