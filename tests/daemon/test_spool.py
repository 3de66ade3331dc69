from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from denoised.daemon.clock import Clock, Mark
from denoised.daemon.core.job import Job
from denoised.daemon.spool import Known, Outgoing, Spool, SpoolError


def job(name="a", at=1.0, **more):
    return Job(id=name, kind="k", params={"x": [1, None]}, seed=3, items=1, received_at=at, digest="d", **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "spool.db"


def test_an_accepted_job_is_there_after_a_restart_with_every_field(path):
    wanted = job(response_topic="r", correlation=b"\x00\xff", deadline_at=5.5, deliver="mqtt")
    spool = Spool(path)
    spool.accept([wanted], 1.0)
    spool.close()
    assert Spool(path).unfinished() == [(wanted, "accepted")]


def test_unfinished_jobs_come_back_in_the_order_in_which_they_came(path):
    spool = Spool(path)
    spool.accept([job("b", 2.0), job("c", 3.0), job("a", 1.0)], 3.0)
    assert [j.id for j, _ in spool.unfinished()] == ["a", "b", "c"]


def test_result_and_messages_are_stored_together(path):
    spool, file = Spool(path), Outgoing("u", None, "/file", b"c", "image/png", "a")
    spool.accept([job()], 1.0)
    spool.finish("a", {"state": "done", "n": 1}, [Outgoing("t", b"1"), file], 2.0)
    spool.close()
    again = Spool(path)
    assert again.unfinished() == []
    known = again.find("a")
    assert known is not None
    assert known.result == {"state": "done", "n": 1}
    assert [m for _, m in again.outgoing(0, 10)] == [Outgoing("t", b"1"), file]
    assert again.undelivered() == {"a"}


def test_what_is_acknowledged_leaves_the_outbox_and_the_rest_keeps_its_order(path):
    spool = Spool(path)
    spool.accept([job()], 1.0)
    spool.finish("a", {"state": "done"}, [Outgoing(str(n), b"") for n in range(5)], 1.0)
    seqs = [seq for seq, _ in spool.outgoing(0, 10)]
    spool.sent(seqs[1:3])
    spool.settle()
    assert [m.topic for _, m in spool.outgoing(0, 10)] == ["0", "3", "4"]
    assert [m.topic for _, m in spool.outgoing(seqs[3], 10)] == ["4"]
    assert spool.outbox_size() == 3


def test_the_same_id_twice_stores_neither(path):
    spool = Spool(path)
    spool.accept([job("a")], 1.0)
    with pytest.raises(Exception, match="UNIQUE"):
        spool.accept([job("b"), job("a")], 1.0)
    assert [j.id for j, _ in spool.unfinished()] == ["a"]


def test_forgetting_takes_old_results_and_never_a_job_that_waits(path):
    spool = Spool(path)
    spool.accept([job("old"), job("new"), job("waits")], 1.0)
    spool.finish("old", {"state": "done"}, [], 10.0)
    spool.finish("new", {"state": "done"}, [], 20.0)
    spool.forget(15.0)
    assert spool.find("old") is None
    assert spool.find("new") is not None
    assert [j.id for j, _ in spool.unfinished()] == ["waits"]


def test_a_job_is_on_the_disk_when_accept_returns_even_if_the_process_is_killed_then(path):
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom denoised.daemon.spool import Spool\n"
        "from denoised.daemon.core.job import Job\n"
        f"Spool(Path({str(path)!r})).accept([Job('a', 'k', {{}}, 0, 1, 1.0)], 1.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=path.parent.parent).returncode == -signal.SIGKILL
    assert [j.id for j, _ in Spool(path).unfinished()] == ["a"]


def test_a_second_daemon_on_the_same_spool_is_told_so(path):
    first = Spool(path)
    with pytest.raises(SpoolError, match="is another denoised running"):
        Spool(path)
    first.close()
    Spool(path).close()


def test_commits_wait_for_the_disk(path):
    db = Spool(path)._db
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_disk_that_takes_nothing_is_a_spool_error_and_nothing_is_half_stored(path):
    spool = Spool(path)
    spool.accept([job("a")], 1.0)
    spool._db.execute("PRAGMA query_only = 1")  # SQLite then refuses each write as it does on a read-only disk
    with pytest.raises(SpoolError, match="cannot be written"):
        spool.accept([job("b")], 1.0)
    spool._db.execute("PRAGMA query_only = 0")
    spool.accept([job("c")], 1.0)
    assert {j.id for j, _ in spool.unfinished()} == {"a", "c"}


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "state").write_text("a file where the folder should be")
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(OSError):
        Spool(tmp_path / "state" / "spool.db")


@pytest.fixture
def full(path):
    """A closed spool of 300 jobs, every third finished, on some 100 pages."""
    spool = Spool(path)
    spool.accept([job(f"j{n:03d}", float(n), source="x" * 800) for n in range(300)], 1.0)
    for n in range(0, 300, 3):
        spool.finish(f"j{n:03d}", {"state": "done"}, [Outgoing("t", b"p" * 100)], 2.0)
    spool.close()
    return path


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_file_cut_short_is_set_aside_and_what_can_be_read_is_saved(full, share):
    os.truncate(full, int(full.stat().st_size * share) // 512 * 512)
    spool = Spool(full)
    assert spool.damage and "damaged" in spool.damage
    assert full.with_name("spool.damaged-1.db").exists()
    saved = spool.unfinished()
    assert len(saved) > 0
    assert all(j.source == "x" * 800 for j, _ in saved)
    spool.accept([job("new")], 3.0)
    for job_id in spool.unreadable:
        spool.finish(job_id, {"state": "failed"}, [], 4.0)
    spool.close()
    assert Spool(full).damage is None


def test_flipped_bits_are_found_at_the_start(full):
    data = bytearray(full.read_bytes())
    for at in range(4096 * 20, 4096 * 22):
        data[at] ^= 0x5A
    full.write_bytes(data)
    spool = Spool(full)
    assert spool.damage
    assert 100 < len(spool.unfinished()) < 200


@pytest.mark.parametrize("content", [b"", b"not a database, just some text " * 400, bytes(8192)])
def test_a_file_that_is_no_database_never_stops_the_daemon(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    spool = Spool(path)
    spool.accept([job()], 1.0)
    assert [j.id for j, _ in spool.unfinished()] == ["a"]


def test_a_marked_job_comes_back_with_its_mark_and_waits_no_more(path):
    spool = Spool(path)
    spool.accept([job("a", start_by=9.0), job("b", start_by=9.0)], 1.0)
    spool.mark("a", "held")
    spool.close()
    assert [(j.id, j.start_by, state) for j, state in Spool(path).unfinished()] == [("a", None, "held"), ("b", 9.0, "accepted")]


def test_sent_messages_cost_no_commit_and_are_gone_after_the_next_one(path):
    spool = Spool(path)
    spool.accept([job("a"), job("b")], 1.0)
    spool.finish("a", {"state": "done"}, [Outgoing("t", b"1")], 1.0)
    before = (path.parent / "spool.db-wal").stat().st_size
    spool.sent([spool.outgoing(0, 1)[0][0]])
    assert (path.parent / "spool.db-wal").stat().st_size == before
    assert spool.outbox_size() == 0
    spool.settle()
    assert spool.outgoing(0, 10) == []
    size = (path.parent / "spool.db-wal").stat().st_size
    spool.settle()
    spool.forget(0.5)
    assert (path.parent / "spool.db-wal").stat().st_size == size, "nothing to do writes nothing"


def flip(path, table, column, row, at=9):
    """One bit of what is stored, as a worn cell would: SQLite's own check does not see it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        (value,) = db.execute(f"SELECT {column} FROM {table} ORDER BY rowid LIMIT 1 OFFSET {row}").fetchone()
        flipped = value[:at] + bytes([value[at] ^ 4]) + value[at + 1 :]
        cast = "CAST(? AS TEXT)" if column in ("id", "digest") else "?"
        where = f"rowid = (SELECT rowid FROM {table} ORDER BY rowid LIMIT 1 OFFSET {row})"
        db.execute(f"UPDATE {table} SET {column} = {cast} WHERE {where}", (flipped,))
        db.commit()


def test_a_flipped_bit_in_a_request_is_never_another_job(path):
    spool = Spool(path)
    spool.accept([job("a"), job("b")], 1.0)
    spool.close()
    flip(path, "jobs", "job", 0)
    spool = Spool(path)
    assert spool.unreadable == ["a"]
    assert "1 accepted requests were damaged" in (spool.damage or "")
    assert [j.id for j, _ in spool.unfinished()] == ["b"]
    spool.finish("a", {"state": "failed"}, [], 2.0)
    spool.close()
    assert Spool(path).damage is None


@pytest.mark.parametrize("column", ["id", "digest"])
def test_a_flipped_bit_beside_a_request_is_put_right_from_it(path, column):
    spool = Spool(path)
    spool.accept([job("a")], 1.0)
    spool.close()
    flip(path, "jobs", column, 0, at=0)
    spool = Spool(path)
    assert [j.id for j, _ in spool.unfinished()] == ["a"]
    assert spool.find("a") == Known("d", None)


def test_a_flipped_bit_in_a_message_is_never_published_and_its_job_is_named(path):
    spool = Spool(path)
    spool.accept([job("a"), job("b")], 1.0)
    spool.finish("a", {"state": "done", "n": 12}, [Outgoing("t", b'{"state":"done","n":12}', job="a")], 1.0)
    spool.finish("b", {"state": "done"}, [Outgoing("u", b"1", job="b")], 1.0)
    spool.close()
    flip(path, "outbox", "message", 0)
    spool = Spool(path)
    assert spool.untold == ["a"]
    assert [m.topic for _, m in spool.outgoing(0, 9)] == ["u"]
    assert "1 stored messages" in (spool.damage or "")
    known = spool.find("a")
    assert known and known.result == {"state": "done", "n": 12}


def test_a_flipped_bit_in_a_result_makes_the_id_new(path):
    spool = Spool(path)
    spool.accept([job("a")], 1.0)
    spool.finish("a", {"state": "done"}, [], 1.0)
    spool.close()
    flip(path, "jobs", "result", 0)
    assert Spool(path).find("a") is None


def test_the_request_of_a_job_that_is_over_takes_no_room(path):
    spool = Spool(path)
    spool.accept([job("a", source="x" * 100_000)], 1.0)
    spool.finish("a", {"state": "done"}, [], 2.0)
    assert spool._db.execute("SELECT length(job) FROM jobs").fetchone() == (0,)


def test_a_salvage_that_is_interrupted_begins_again_and_loses_nothing(full, monkeypatch):
    os.truncate(full, int(full.stat().st_size * 0.7) // 512 * 512)
    real = os.rename

    def power_cut(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", power_cut)
    with pytest.raises(KeyboardInterrupt):
        Spool(full)
    monkeypatch.setattr(os, "rename", real)
    spool = Spool(full)
    assert spool.damage
    assert len(spool.unfinished()) > 0


def test_gateway_time_goes_on_after_a_restart(path):
    spool = Spool(path)
    spool.clock = Clock(Mark(5000.0, 1.0, 0.0, "another boot"))  # the wall clock was at 1970, then it was set
    first = spool.clock.now()
    spool.accept([job()], 1.0)
    spool.close()
    again = Spool(path).clock.now()
    assert first <= again < first + 60
