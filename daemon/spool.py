"""What must not be lost: accepted jobs and replies not yet delivered, in one SQLite file. The only file that imports sqlite3.

WAL with synchronous=FULL: a commit is on the disk when it returns, so a request may be acknowledged. A job's row stays
until its result is stored; result and outbox row are written in one transaction, so there is never one without the other.
Each transaction also keeps the time, so that gateway time (`clock.py`) goes on from there after a restart. What SQLite
does not check on reading, each blob, carries a CRC-32: a flipped bit is a lost row that is said so, never another job.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from .clock import Clock, Mark
from .core.job import Job

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, state TEXT NOT NULL, changed_at REAL NOT NULL, job BLOB NOT NULL, result BLOB
);
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB, path TEXT, correlation BLOB, content_type TEXT,
    job TEXT
);
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), mark BLOB NOT NULL);
"""
_TABLES = ("jobs", "outbox", "clock")


class SpoolError(OSError):
    """The disk did not take it: full, read-only or failing; maps to the contract's code `storage`."""


@dataclass(frozen=True)
class Outgoing:
    """A message that must arrive (QoS 1): `payload`, or the bytes of the file at `path`.

    result_of: the job whose result the payload is, where it is one.
    """

    topic: str
    payload: bytes | None
    path: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    result_of: str | None = None


@dataclass(frozen=True)
class Known:
    """What the spool remembers of a job: once its `state` is final, `result` is there."""

    digest: str
    state: str
    result: dict[str, Any] | None


class Spool:
    """The durable store, and the clock that goes on with it. Used by one thread."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.damage: str | None = None
        """Where something was found damaged at this start: what became of it, in words."""
        self.unreadable: list[str] = []
        """Ids of accepted jobs whose request cannot be read any more."""
        try:
            self._db = _open(path)
        except sqlite3.OperationalError as e:
            raise SpoolError(f"{path}: {e}; is another denoised running with this state_dir?") from e
        except sqlite3.DatabaseError as e:
            self._start_afresh(path, str(e))
        self._sent: list[int] = []
        self.clock = Clock(self._last_mark())
        self._mend()

    def _start_afresh(self, path: Path, why: str) -> None:
        """Sets a damaged file aside, where a person can look at it, and saves what can still be read."""
        aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.stem}.damaged-{n}{path.suffix}")).exists())
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        self._db = _open(path)
        saved = {table: _salvage(aside, table) for table in _TABLES}
        self._db.execute("BEGIN IMMEDIATE")
        for table, rows in saved.items():
            for row in rows:
                with contextlib.suppress(sqlite3.Error):  # a row that the table does not take is no use either
                    self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        self._db.execute("COMMIT")
        counts = " and ".join(f"{len(saved[table])} rows of {table}" for table in ("jobs", "outbox"))
        self.damage = f"the spool was damaged ({why}) and lies as {aside.name}; {counts} were saved"

    def _last_mark(self) -> Mark | None:
        row = self._db.execute("SELECT mark FROM clock").fetchone()
        mark = row and _unsealed(row[0])
        return msgspec.json.decode(mark, type=Mark) if mark else None

    def _mend(self) -> None:
        """Takes out what a flipped bit made unreadable; a result's message is made again from the result."""
        lost = 0
        for seq, payload, job_id in self._db.execute("SELECT seq, payload, job FROM outbox").fetchall():
            if payload is None or _unsealed(payload) is not None:
                continue
            (result,) = self._db.execute("SELECT result FROM jobs WHERE id = ?", (job_id,)).fetchone() or (None,)
            if result is not None and _unsealed(result) is not None:
                self._db.execute("UPDATE outbox SET payload = ? WHERE seq = ?", (result, seq))
            else:
                self._db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
                lost += 1
        for job_id, job, result in self._db.execute("SELECT id, job, result FROM jobs").fetchall():
            if result is not None and _unsealed(result) is None:  # over, but nobody can say how any more
                self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
                lost += 1
            elif result is None and _job(job) is None:
                self.unreadable.append(str(job_id))
        if lost or self.unreadable:
            found = f"{lost} stored replies and {len(self.unreadable)} accepted requests were damaged"
            self.damage = f"{self.damage}; {found}" if self.damage else f"the spool held flipped bits: {found}"

    def accept(self, jobs: Iterable[Job], now: float) -> None:
        """Stores these jobs together; when it returns, they are on the disk."""
        rows = [(j.id, j.digest, "accepted", now, _sealed(msgspec.json.encode(j))) for j in jobs]
        with self._transaction():
            self._db.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL)", rows)

    def find(self, job_id: str) -> Known | None:
        """The job of this id, however long it is over."""
        row = self._db.execute("SELECT digest, state, result FROM jobs WHERE id = ?", (job_id,)).fetchone()
        result = row and row[2] and _unsealed(row[2])
        return row and Known(row[0], row[1], msgspec.json.decode(result) if result else None)

    def unfinished(self) -> list[tuple[Job, str]]:
        """Accepted jobs without a result, the oldest first, each with the last that `mark` said of it, else `accepted`.

        The wait of one that has been marked is over: it has no `start_by` any more.
        """
        rows = self._db.execute("SELECT job, state FROM jobs WHERE result IS NULL").fetchall()
        jobs = [(job, state) for blob, state in rows if (job := _job(blob)) is not None]
        jobs = [(job if state == "accepted" else replace(job, start_by=None), state) for job, state in jobs]
        return sorted(jobs, key=lambda found: found[0].received_at)

    def mark(self, job_id: str, state: str) -> None:
        """What a restart has to know of an unfinished job: `started`, or `held` where an operator paused it."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET state = ? WHERE id = ? AND result IS NULL", (state, job_id))

    def finish(self, job_id: str, result: dict[str, Any], messages: Sequence[Outgoing], now: float) -> None:
        """The one final result of a job, and what has to be said about it, in one transaction."""
        encoded = _sealed(msgspec.json.encode(result))
        rows = [
            (m.topic, None if m.payload is None else _sealed(m.payload), m.path, m.correlation, m.content_type, m.result_of)
            for m in messages
        ]
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, result = ?, changed_at = ? WHERE id = ?", (result["state"], encoded, now, job_id)
            )
            self._db.executemany(
                "INSERT INTO outbox (topic, payload, path, correlation, content_type, job) VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    def outgoing(self, after: int, limit: int) -> list[tuple[int, Outgoing]]:
        """The next messages of the outbox, in the order in which they were put."""
        rows = self._db.execute(
            "SELECT seq, topic, payload, path, correlation, content_type, job FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, limit),
        )
        return [(row[0], Outgoing(row[1], row[2] and _unsealed(row[2]), *row[3:])) for row in rows]

    def sent(self, seqs: Iterable[int]) -> None:
        """The broker has these. They are deleted with the next transaction, or by `settle`: no commit of their own."""
        self._sent += seqs

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._sent)

    def settle(self) -> None:
        """Deletes what has been sent, where no transaction has come by since."""
        if self._sent:
            with self._transaction():
                pass

    def outbox_size(self) -> int:
        """How many messages wait to be delivered."""
        count: int = self._db.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return count - len(self._sent)

    def undelivered_paths(self) -> set[str]:
        """Files that the outbox still has to send."""
        return {row[0] for row in self._db.execute("SELECT path FROM outbox WHERE path IS NOT NULL")}

    def forget(self, before: float) -> None:
        """Drops what is remembered of jobs that ended before this time; writes nothing where there are none."""
        old = "result IS NOT NULL AND changed_at < ?"
        if self._db.execute(f"SELECT 1 FROM jobs WHERE {old} LIMIT 1", (before,)).fetchone():
            with self._transaction():
                self._db.execute(f"DELETE FROM jobs WHERE {old}", (before,))

    def close(self) -> None:
        """Nothing may follow."""
        with contextlib.suppress(SpoolError):
            self.settle()
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        mark = _sealed(msgspec.json.encode(self.clock.mark()))
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in self._sent])
            self._db.execute("INSERT OR REPLACE INTO clock VALUES (1, ?)", (mark,))
            yield
            self._db.execute("COMMIT")
        except BaseException as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(e, sqlite3.OperationalError):
                raise SpoolError(f"the spool cannot be written: {e}") from e
            raise
        self._sent.clear()


def _open(path: Path) -> sqlite3.Connection:
    """The database, whole and ready; sqlite3.DatabaseError where it is damaged, OperationalError where it is somebody's."""
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        # One daemon per spool: a second one is told so, and no lock is taken and given back at each commit.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        # Not quick_check: an index that disagrees with its table would hide a job from `find`.
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found.splitlines()[-1])
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != _VERSION and db.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise sqlite3.DatabaseError(f"its layout is version {version}, expected {_VERSION}")
        db.executescript(_SCHEMA)
        if version != _VERSION:
            db.execute(f"PRAGMA user_version = {_VERSION}")
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
                rows[row[0]] = row
    return list(rows.values())


def _sealed(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big") + data


def _unsealed(blob: Any) -> bytes | None:
    """The data, or None where it is not what was stored."""
    if not isinstance(blob, bytes) or zlib.crc32(blob[4:]).to_bytes(4, "big") != blob[:4]:
        return None
    return blob[4:]


def _job(blob: Any) -> Job | None:
    data = _unsealed(blob)
    try:
        return None if data is None else msgspec.json.decode(data, type=Job)
    except msgspec.MsgspecError:  # another version's
        return None
