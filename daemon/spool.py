"""What must not be lost: accepted jobs and replies not yet delivered, in one SQLite file. The only file that imports sqlite3.

WAL with synchronous=FULL: a commit is on the disk when it returns, so a request may be acknowledged. A job's row stays
until its result is stored; result and outbox row are written in one transaction, so there is never one without the other.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from .core.job import Job

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, state TEXT NOT NULL, changed_at REAL NOT NULL, job BLOB NOT NULL, result BLOB
);
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB, path TEXT, correlation BLOB, content_type TEXT
);
"""


class SpoolError(OSError):
    """The disk did not take it: full, read-only or failing; maps to the contract's code `storage`."""


@dataclass(frozen=True)
class Outgoing:
    """A message that must arrive (QoS 1): `payload`, or the bytes of the file at `path`."""

    topic: str
    payload: bytes | None
    path: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None


@dataclass(frozen=True)
class Known:
    """What the spool remembers of a job: once its `state` is final, `result` is there."""

    digest: str
    state: str
    result: dict[str, Any] | None


class Spool:
    """The durable store. Used by one thread."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.damage: str | None = None
        """Where the file was found damaged at this start: what became of it, in words."""
        try:
            self._db = _open(path)
        except sqlite3.OperationalError as e:
            raise SpoolError(f"{path}: {e}; is another denoised running with this state_dir?") from e
        except sqlite3.DatabaseError as e:
            self._start_afresh(path, str(e))

    def _start_afresh(self, path: Path, why: str) -> None:
        """Sets a damaged file aside, where a person can look at it, and saves what can still be read."""
        aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.stem}.damaged-{n}{path.suffix}")).exists())
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        self._db = _open(path)
        saved = {table: _salvage(aside, table) for table in ("jobs", "outbox")}
        with self._transaction():
            for table, rows in saved.items():
                marks = ", ".join("?" * 6)
                self._db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
        counts = " and ".join(f"{len(rows)} rows of {table}" for table, rows in saved.items())
        self.damage = f"the spool was damaged ({why}) and lies as {aside.name}; {counts} were saved"

    def accept(self, jobs: Iterable[Job], now: float) -> None:
        """Stores these jobs together; when it returns, they are on the disk."""
        rows = [(j.id, j.digest, "accepted", now, msgspec.json.encode(j)) for j in jobs]
        with self._transaction():
            self._db.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL)", rows)

    def find(self, job_id: str) -> Known | None:
        """The job of this id, however long it is over."""
        row = self._db.execute("SELECT digest, state, result FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return row and Known(row[0], row[1], None if row[2] is None else msgspec.json.decode(row[2]))

    def unfinished(self) -> list[Job]:
        """Accepted jobs without a result, the oldest first; one that has started has no `start_by` any more."""
        rows = self._db.execute("SELECT state, job FROM jobs WHERE result IS NULL").fetchall()
        jobs = [(state, msgspec.json.decode(job, type=Job)) for state, job in rows]
        jobs = [(state, replace(job, start_by=None) if state == "started" else job) for state, job in jobs]
        return sorted((job for _, job in jobs), key=lambda j: j.received_at)

    def started(self, job_id: str) -> None:
        """The wait of this job is over, also after a restart."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET state = 'started' WHERE id = ?", (job_id,))

    def finish(self, job_id: str, result: dict[str, Any], messages: Sequence[Outgoing], now: float) -> None:
        """The one final result of a job, and what has to be said about it, in one transaction."""
        with self._transaction():
            encoded = msgspec.json.encode(result)
            self._db.execute(
                "UPDATE jobs SET state = ?, result = ?, changed_at = ? WHERE id = ?", (result["state"], encoded, now, job_id)
            )
            self._put(messages)

    def say(self, messages: Sequence[Outgoing]) -> None:
        """Messages that must arrive and belong to no job's end."""
        with self._transaction():
            self._put(messages)

    def outgoing(self, after: int, limit: int) -> list[tuple[int, Outgoing]]:
        """The next messages of the outbox, in the order in which they were put."""
        rows = self._db.execute(
            "SELECT seq, topic, payload, path, correlation, content_type FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, limit),
        )
        return [(row[0], Outgoing(*row[1:])) for row in rows]

    def sent(self, seqs: Iterable[int]) -> None:
        """These have been acknowledged by the broker."""
        with self._transaction():
            self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(s,) for s in seqs])

    def outbox_size(self) -> int:
        """How many messages wait to be delivered."""
        count: int = self._db.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return count

    def undelivered_paths(self) -> set[str]:
        """Files that the outbox still has to send."""
        return {row[0] for row in self._db.execute("SELECT path FROM outbox WHERE path IS NOT NULL")}

    def forget(self, before: float) -> int:
        """Drops what is remembered of jobs that ended before this time; returns how many."""
        with self._transaction():
            cursor = self._db.execute("DELETE FROM jobs WHERE result IS NOT NULL AND changed_at < ?", (before,))
        return cursor.rowcount

    def close(self) -> None:
        """Nothing may follow."""
        self._db.close()

    def _put(self, messages: Sequence[Outgoing]) -> None:
        rows = [(m.topic, m.payload, m.path, m.correlation, m.content_type) for m in messages]
        self._db.executemany(
            "INSERT INTO outbox (topic, payload, path, correlation, content_type) VALUES (?, ?, ?, ?, ?)", rows
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(e, sqlite3.OperationalError):
                raise SpoolError(f"the spool cannot be written: {e}") from e
            raise


def _open(path: Path) -> sqlite3.Connection:
    """The database, whole and ready; sqlite3.DatabaseError where it is damaged, OperationalError where it is somebody's."""
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        # One daemon per spool: a second one is told so, and no lock is taken and given back at each commit.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found.splitlines()[-1])
    except BaseException:
        db.close()
        raise
    return db


def _salvage(path: Path, table: str) -> list[tuple[Any, ...]]:
    """The rows that can be read from either end of a damaged table."""
    rows: dict[Any, tuple[Any, ...]] = {}
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA writable_schema = ON")  # SQLite then reads a file that is shorter than its header says
            for row in db.execute(f"SELECT * FROM {table} ORDER BY rowid {order}"):
                if table == "outbox" or _is_job(row):
                    rows[row[0]] = row
    return list(rows.values())


def _is_job(row: tuple[Any, ...]) -> bool:
    """Whether the row holds a job that can be run or answered."""
    try:
        msgspec.json.decode(row[4], type=Job)
        return row[5] is None or isinstance(msgspec.json.decode(row[5]), dict)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
        return False
