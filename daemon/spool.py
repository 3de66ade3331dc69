"""What must not be lost: accepted jobs and replies not yet delivered, in one SQLite file. The only file that imports sqlite3.

WAL with synchronous=FULL: a commit is on the disk when it returns, so a request may be acknowledged. A job's row stays
until its result is stored; result and outbox row are written in one transaction, so there is never one without the other.
Each transaction also keeps the time, so that gateway time (`clock.py`) goes on from there after a restart. What SQLite
does not check on reading, each job, result and message, carries a CRC-32: a flipped bit is a lost row that is said so,
never another job.
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
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), mark BLOB NOT NULL);
"""
_TABLES = ("jobs", "outbox", "clock")


class SpoolError(OSError):
    """The disk did not take it: full, read-only or failing; maps to the contract's code `storage`."""


@dataclass(frozen=True)
class Outgoing:
    """A message that must arrive (QoS 1): `payload`, or the bytes of the file at `path`. `job` is whom it is about."""

    topic: str
    payload: bytes | None
    path: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    job: str | None = None


_MESSAGE, _JOB = msgspec.msgpack.Decoder(Outgoing), msgspec.json.Decoder(Job)


@dataclass(frozen=True)
class Known:
    """What the spool remembers of a job: `result` is there once it is over."""

    digest: str
    result: dict[str, Any] | None


class Spool:
    """The durable store, and the clock that goes on with it. Used by one thread."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.damage: str | None = None
        """Where something was found damaged at this start: what became of it, in words."""
        self.unreadable: list[str] = []
        """Ids of accepted jobs whose request cannot be read any more."""
        self.untold: list[str] = []
        """Ids of jobs that are over, of which a message was damaged before it was delivered."""
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
        """Sets a damaged file aside, where a person can look at it, and saves what can still be read.

        The new file is whole before it takes the old one's place: who is interrupted here begins again.
        """
        aside = next(p for n in range(1, 10**6) if not (p := path.with_name(f"{path.stem}.damaged-{n}{path.suffix}")).exists())
        fresh = path.with_name(f"{path.stem}.new{path.suffix}")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{fresh}{suffix}").unlink(missing_ok=True)
        saved = {table: _salvage(path, table) for table in _TABLES}
        try:
            with contextlib.closing(_open(fresh)) as db:
                db.execute("BEGIN IMMEDIATE")
                for table, rows in saved.items():
                    for row in rows:
                        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError):  # such a row is no use either
                            db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
                db.execute("COMMIT")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as e:
            raise SpoolError(f"{path} is damaged ({why}), and what can be read of it cannot be written: {e}") from e
        for suffix in ("-wal", "-shm", ""):  # the file itself last: it is what a start looks for
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        os.rename(fresh, path)
        self._db = _open(path)
        counts = " and ".join(f"{len(saved[table])} rows of {table}" for table in ("jobs", "outbox"))
        self.damage = f"the spool was damaged ({why}) and lies as {aside.name}; {counts} were saved"

    def _last_mark(self) -> Mark | None:
        row = self._db.execute("SELECT mark FROM clock").fetchone()
        mark = row and _unsealed(row[0])
        return msgspec.json.decode(mark, type=Mark) if mark else None

    def _mend(self) -> None:
        """Takes out what a flipped bit made unreadable, and says of which jobs."""
        rows = self._db.execute("SELECT seq, job, message FROM outbox")
        broken = [(seq, job_id) for seq, job_id, message in rows if _message(message) is None]
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq, _ in broken])
        self.untold = sorted({str(job_id) for _, job_id in broken if job_id is not None})
        misnamed = []
        for job_id, digest, blob in self._db.execute("SELECT id, digest, job FROM jobs WHERE result IS NULL"):
            job = _job(blob)
            if job is None:
                self.unreadable.append(str(job_id))
            elif (job.id, job.digest) != (job_id, digest):  # the flipped bit is in the columns beside it
                misnamed.append((job.id, job.digest, job_id))
        self._db.executemany("UPDATE OR REPLACE jobs SET id = ?, digest = ? WHERE id = ?", misnamed)
        if broken or self.unreadable:
            found = f"{len(broken)} stored messages and {len(self.unreadable)} accepted requests were damaged"
            self.damage = f"{self.damage}; {found}" if self.damage else f"the spool held flipped bits: {found}"

    def accept(self, jobs: Iterable[Job], now: float) -> None:
        """Stores these jobs together; when it returns, they are on the disk."""
        rows = [(j.id, j.digest, "accepted", now, _sealed(msgspec.json.encode(j))) for j in jobs]
        with self._transaction():
            self._db.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL)", rows)

    def find(self, job_id: str) -> Known | None:
        """The job of this id, however long it is over; None where it is new, or its result cannot be read any more."""
        row = self._db.execute("SELECT digest, result FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None or row[1] is None:
            return row and Known(row[0], None)
        result = _unsealed(row[1])
        return None if result is None else Known(row[0], msgspec.json.decode(result))

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
        """The one final result of a job, and what has to be said about it, in one transaction. Its request is done with."""
        encoded = _sealed(msgspec.json.encode(result))
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, result = ?, changed_at = ?, job = x'' WHERE id = ?",
                (result["state"], encoded, now, job_id),
            )
            self._db.executemany(
                "INSERT INTO outbox (job, message) VALUES (?, ?)",
                [(m.job, _sealed(msgspec.msgpack.encode(m))) for m in messages],
            )

    def outgoing(self, after: int, limit: int) -> list[tuple[int, Outgoing]]:
        """The next messages of the outbox, in the order in which they were put."""
        rows = self._db.execute("SELECT seq, message FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        return [(seq, message) for seq, blob in rows if (message := _message(blob)) is not None]

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

    def undelivered(self) -> set[str]:
        """Jobs of which something is still to be said."""
        return {row[0] for row in self._db.execute("SELECT job FROM outbox WHERE job IS NOT NULL")}

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
    db.text_factory = _text
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
            db.text_factory = _text
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


def _message(blob: Any) -> Outgoing | None:
    return _decoded(blob, _MESSAGE)


def _job(blob: Any) -> Job | None:
    return _decoded(blob, _JOB)


def _decoded(blob: Any, decoder: Any) -> Any:
    """The value, or None where the blob is not what was stored, or another version's."""
    data = _unsealed(blob)
    try:
        return None if data is None else decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def _text(raw: bytes) -> str:
    """A flipped bit in a name is no reason to fail."""
    return raw.decode("utf-8", "replace")
