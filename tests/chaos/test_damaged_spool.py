"""A spool that was truncated, flipped or overwritten between two runs: the daemon starts, says so, and serves.

What stood in a damaged page may be gone; that can only be told where SQLite can tell it: it has no checksums over its
pages, and takes a log that ends early for a power cut. So the promise here is smaller: the daemon is up without a person's
help, the damaged file lies aside and the log says what was saved of it, nothing else is answered than what was asked, and
whoever sends a request again gets its result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from denoised.demo.broker import find_mosquitto
from denoised.tests.chaos.plant import PATIENCE, Plant

SEED = int(os.environ.get("CHAOS_SEED", "1"))
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4")) // 2
ONLY = os.environ.get("CHAOS_ROUND")
NUMBERS = range(ROUNDS) if ONLY is None else [int(ONLY)]
JOBS = 12


def truncate(data: bytearray, rng: Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def flip_bits(data: bytearray, rng: Random) -> bytearray:
    for _ in range(rng.choice((1, 8, 64, 512))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def blank_a_page(data: bytearray, rng: Random) -> bytearray:
    at = rng.randrange(0, len(data), 4096)
    data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    return data


def garble_a_page(data: bytearray, rng: Random) -> bytearray:
    at = rng.randrange(0, len(data), 4096)
    data[at : at + 4096] = rng.randbytes(len(data[at : at + 4096]))
    return data


def empty(data: bytearray, rng: Random) -> bytearray:
    return bytearray()


DAMAGES: tuple[Callable[[bytearray, Random], bytearray], ...] = (truncate, flip_bits, blank_a_page, garble_a_page, empty)


@pytest.fixture(scope="module")
def plant(tmp_path_factory, toy_models):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: sudo apt-get install mosquitto")
    with Plant(tmp_path_factory.mktemp("damaged"), toy_models, small_disk=False) as made:
        yield made


@pytest.fixture(scope="module")
def calm(plant):
    for seed in range(2):
        plant.requester.submit({"id": f"calm-{seed}", "seed": seed, "params": {"count": 2}})
    plant.wait(lambda: all(plant.record.known(f"calm-{seed}").arrived for seed in range(2)), "no results in all calm")
    return [plant.record.known(f"calm-{seed}").result["artifacts"][0]["sha256"] for seed in range(2)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_damaged_spool_is_set_aside_and_jobs_are_served(plant, calm, number):
    rng = Random(f"{SEED}-damage-{number}")
    again = f"\nplay it again: make chaos CHAOS_SEED={SEED} CHAOS_ROUND={number}"
    jobs = {f"s{SEED}d{number}-{n}": {"seed": n % 2, "params": {"count": 2}} for n in range(JOBS)}
    for job_id, body in jobs.items():
        plant.requester.submit({"id": job_id, **body})
    wanted = rng.randrange(JOBS)
    plant.wait(lambda: sum(plant.record.known(i).arrived for i in jobs) >= wanted, f"not even {wanted} results{again}")
    if rng.random() < 0.6:  # a clean stop leaves all in the file itself, a crash most of it in the log beside it
        plant.stop()
        plant.daemon.wait(PATIENCE)
    else:
        plant.kill_daemon()

    story = damage(plant.state, rng)
    seen_before, asides = len(plant.logged()), set(plant.state.glob("spool*damaged*"))
    unreadable = broken(plant.state / "spool.db", plant.state.parent)
    plant.start()
    plant.wait(lambda: not plant.running or plant.status() == "online", f"not online with {story}{again}")
    log = plant.logged()[seen_before:]
    assert plant.running, f"the daemon ended with {story}: {log[-2000:]}{again}"
    if unreadable:
        assert "damaged" in log, f"nothing is said of {story} ({unreadable}): {log[-2000:]}{again}"
        assert set(plant.state.glob("spool*damaged*")) > asides, f"{story} is not kept for a person to look at{again}"
    jobs |= {f"s{SEED}d{number}-new-{n}": {"seed": n, "params": {"count": 2}} for n in range(2)}
    resend(plant, jobs, f"{story}{again}")
    for job_id, body in jobs.items():
        result = plant.record.known(job_id).result
        if is_damaged(result):
            continue
        assert result["state"] == "done", f"{story}: {result}{again}"
        assert result["artifacts"][0]["sha256"] == calm[body["seed"]], f"{story}: {job_id} has other bytes{again}"
    strange = [b for b in plant.record.broken if "has two results" not in b]  # a lost result may be made again
    assert not strange, f"{story}: {strange[:4]}{again}"
    plant.record.broken.clear()
    print(f"{story}: {unreadable}; {log.count(chr(10))} lines")


def is_damaged(result: dict) -> bool:
    """The one honest answer to an accepted job of which the disk has kept no more than the name."""
    error = result.get("error", {})
    return error.get("code") == "storage" and "the stored request was damaged" in error["message"]


def damage(state: Path, rng: Random) -> str:
    """One or both of the spool's files; what was done, in words."""
    files = [f for name in ("spool.db", "spool.db-wal") if (f := state / name).exists() and f.stat().st_size]
    done = []
    for file in rng.sample(files, rng.randint(1, len(files))):
        how = rng.choice(DAMAGES)
        file.write_bytes(how(bytearray(file.read_bytes()), rng))
        done.append(f"{how.__name__} of {file.name}")
    return " and ".join(done)


def broken(spool: Path, aside: Path) -> str | None:
    """What SQLite itself finds wrong in a copy of the spool; None where it sees nothing."""
    copy = aside / "copy.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(f"{spool}{suffix}", f"{copy}{suffix}")
    try:
        with contextlib.closing(sqlite3.connect(copy)) as db:
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            return None if found == "ok" else str(found)
    except sqlite3.DatabaseError as e:
        return str(e)


def resend(plant: Plant, jobs: dict[str, dict], what: str) -> None:
    """Every job is asked for until its result, old or new, is there."""
    for job_id in jobs:
        plant.record.known(job_id).arrived = False
    requester, record = plant.requester, plant.record
    requester.results.clear()
    again_at = 0.0

    def all_there() -> bool:
        nonlocal again_at
        missing = [i for i in jobs if not any("run_ms" in r or is_damaged(r) for r in requester.results.get(i, []))]
        if time.monotonic() >= again_at:
            again_at = time.monotonic() + 1.0
            for job_id in missing:
                requester.submit({"id": job_id, **jobs[job_id]})
        return not missing

    plant.wait(all_there, f"no results after {what}; {record.broken[:4]}")
