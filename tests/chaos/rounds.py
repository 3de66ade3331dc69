"""One round: requests of all sorts while faults begin and end, then everything heals and the promise is held against it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from denoised.tests.chaos.faults import FAULTS, Act, deal
from denoised.tests.chaos.plant import PATIENCE, Plant

JOBS, FLOOD, SPAN = 8, 50, 2.5
COUNTS = (1, 4, 16)
"""Sizes of the jobs, in items of fifty steps."""


@dataclass
class Round:
    """What was sent, what was done to the plant, and what may have come of it."""

    name: str
    rng: Random
    dealt: list[str]
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    retained: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    began: float = 0.0

    def note(self, what: str) -> None:
        """A line of the story that a failure prints."""
        self.story.append(f"{time.monotonic() - self.began:6.2f} s  {what}")


def request(rng: Random, job_id: str, count: int) -> dict[str, Any]:
    """One of a few kinds of bytes; a deadline is never near."""
    body: dict[str, Any] = {"id": job_id, "seed": rng.randrange(2), "priority": rng.randrange(8), "params": {"count": count}}
    if rng.random() < 0.3:
        body["deadline_ms"] = 600_000
    if rng.random() < 0.2:
        body["deliver"] = "mqtt"
    return body


def plan(plant: Plant, seed: int, number: int) -> Round:
    """Which faults meet this round."""
    names = [n for n, fault in FAULTS.items() if not fault.needs_disk or (plant.disk and plant.disk.can_be_filled)]
    return Round(f"s{seed}r{number}", Random(f"{seed}-round-{number}"), deal(seed, number, names))


def play(plant: Plant, made: Round) -> None:
    """Sends and breaks, for a few seconds; ends with everything healed."""
    made.began = time.monotonic()
    for at, act in sorted([*_traffic(plant, made), *_damage(plant, made)], key=lambda step: step[0]):
        time.sleep(max(0.0, made.began + at - time.monotonic()))
        act()
    plant.heal()
    made.note("everything is healed")


_Steps = list[tuple[float, Callable[[], None]]]


def _damage(plant: Plant, made: Round) -> _Steps:
    steps: _Steps = []
    for name in made.dealt:
        fault, at = FAULTS[name], made.rng.uniform(0.0, SPAN)
        steps.append((at, partial(_act, plant, made, fault.begin, name)))
        if fault.end:
            steps.append((at + made.rng.uniform(*fault.lasts), partial(_act, plant, made, fault.end, f"  over: {name}")))
    return steps


def _act(plant: Plant, made: Round, act: Act, what: str) -> None:
    made.note(what)
    act(plant, made.rng)


def _traffic(plant: Plant, made: Round) -> _Steps:
    rng, send = made.rng, plant.requester.send
    steps: _Steps = []

    def submit(body: dict[str, Any], retain: bool = False) -> Callable[[], None]:
        return partial(plant.requester.submit, body, retain)

    for n in range(JOBS):
        job_id = f"{made.name}-{n}"
        body = made.requests[job_id] = request(rng, job_id, rng.choice(COUNTS))
        at = rng.uniform(0.0, SPAN)
        steps.append((at, submit(body)))
        for _ in range(rng.choice((0, 0, 1, 2))):
            steps.append((rng.uniform(at, SPAN), submit(body)))
        if rng.random() < 0.2:
            made.cancelled.add(job_id)
            steps.append((rng.uniform(at, SPAN), partial(send, f"jobs/{job_id}/cancel", b"")))
        elif rng.random() < 0.2:  # until it settles
            made.paused.add(job_id)
            steps.append((rng.uniform(at, SPAN), partial(send, f"jobs/{job_id}/pause", b"")))
    steps.append((SPAN, partial(_conflict, plant, made.requests[f"{made.name}-0"])))
    if rng.random() < 0.4:
        at = rng.uniform(0.0, SPAN)
        for n in range(FLOOD):
            job_id = f"{made.name}-flood-{n}"
            body = made.requests[job_id] = request(rng, job_id, 1)
            steps.append((at, submit(body)))
    made.retained.append(f"{made.name}-retained")
    at = rng.uniform(0.0, SPAN)
    steps.append((at, submit({"id": made.retained[0], "params": {}}, retain=True)))
    steps.append((rng.uniform(at, SPAN), partial(send, "jobs/toy/submit", b"", retain=True)))
    for _ in range(10):
        steps.append((rng.uniform(0.0, SPAN), partial(send, rng.choice(_TOPICS), _garbage(rng))))
    return steps


def _conflict(plant: Plant, body: dict[str, Any]) -> None:
    """Other content under an id that is taken; under one that is not, it would be a lawful job."""
    if plant.record.known(body["id"]).accepted:
        plant.requester.submit({**body, "params": {"count": 2}})


_TOPICS = ("jobs/toy/submit", "jobs/nothing/submit", "jobs//submit", "jobs/../cancel", "jobs/nobody/cancel", "jobs/%/submit")


def _garbage(rng: Random) -> bytes:
    return rng.choice(
        (
            rng.randbytes(rng.randrange(1, 400)),
            b"",
            b"[" * 20000,
            b'{"id": 7, "params": 3}',
            b'{"id": "' + b"x" * 300 + b'"}',
            b'{"priority": 99, "params": {"count": 1e999}}',
            json.dumps({"params": {"count": -1}, "sede": 3}).encode(),
            '{"id": "\udc80"}'.encode("utf-8", "surrogatepass"),
        )
    )


def settle(plant: Plant, made: Round, calm: dict[tuple[int, int], str]) -> None:
    """Waits until every request of the round has its result; AssertionError says what of the promise was broken."""
    ids, record, requester = made.requests, plant.record, plant.requester
    until, again_at = time.monotonic() + PATIENCE, time.monotonic() + 1.0
    while open_ := [i for i in ids if not record.known(i).arrived or not _heard(plant, i)]:
        assert plant.running, f"the daemon has ended by itself: {plant.daemon.wait() if plant.daemon else None}"
        if time.monotonic() > until:
            words = {i: record.known(i) for i in open_[:5]}
            raise AssertionError(f"no result for {len(open_)} jobs: {words}")
        time.sleep(0.05)
        if time.monotonic() < again_at:
            continue
        again_at = time.monotonic() + 1.0
        for job_id in open_:
            known = record.known(job_id)
            if job_id in made.paused:
                requester.send(f"jobs/{job_id}/resume", b"")
            unheard = known.arrived  # but this client was not there, or the broker lost it
            if unheard or (not known.promised and (known.refused or job_id not in requester.taken)):
                requester.submit(ids[job_id])
    for job_id, body in ids.items():
        _check(plant, made, job_id, body, calm)
    for job_id in made.retained:
        known = record.known(job_id)
        assert not known.accepted and known.result is None, f"a retained request was run: {job_id} {known}"
    plant.wait(lambda: plant.status() == "online", f"everything works and the retained status says {plant.status()}")
    plant.wait(lambda: not plant.orphans(), f"processes are left over: {plant.orphans()}")
    assert not record.broken, "\n".join(record.broken[:8])


def _heard(plant: Plant, job_id: str) -> list[dict[str, Any]]:
    """The results of this id that the requester saw; refusals come before the request is taken."""
    return [r for r in plant.requester.results.get(job_id, []) if isinstance(r, dict) and "run_ms" in r]


def _check(plant: Plant, made: Round, job_id: str, body: dict[str, Any], calm: dict[tuple[int, int], str]) -> None:
    known = plant.record.known(job_id)
    result = known.result
    assert result is not None
    for copy in _heard(plant, job_id):
        assert copy == result, f"the plant saw another result of {job_id}: {copy} and {result}"
    state, code = result["state"], result.get("error", {}).get("code")
    if state == "cancelled":
        assert job_id in made.cancelled, f"{job_id} was cancelled by nobody"
    elif state == "failed" and code == "engine":
        assert plant.worker_deaths >= 2, f"{job_id}: {result}"
    elif state == "failed" and code == "storage":
        assert {"the disk is full", "the disk fails"} & set(made.dealt), f"{job_id}: {result}"
    else:
        assert state == "done", f"{job_id} ended as {state}: {result}"
        (artifact,) = result["artifacts"]
        wanted = calm[body["seed"], body["params"]["count"]]
        assert artifact["sha256"] == wanted, f"{job_id} has other bytes than an undisturbed run"
        found = hashlib.sha256(Path(artifact["path"]).read_bytes()).hexdigest()
        assert found == wanted, f"{job_id}: the file's bytes are not those of its result"
        if body.get("deliver") == "mqtt":
            assert known.artifacts.get(artifact["name"]) == wanted, f"{job_id}: the artifact did not come as a message"
