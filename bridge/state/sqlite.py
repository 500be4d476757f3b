"""Registers in a file that outlives the process (SQLite, write-ahead log).

The theory
    One connection, on the event loop. A read by primary key takes microseconds, and who reads often keeps what was
    read. What is put waits in memory until `flush` writes all of it in one transaction, many times a second at most.
    With `synchronous=NORMAL` such a transaction waits for no disk: it survives the end of the process, whatever the
    kind. The log is copied back into the file, which does wait for the disk, by a thread with a connection of its own.

    Other processes may use the file (a second instance on this machine, `identities import`). SQLite tells when one of
    them has written (`data_version`); then `refresh` says so, and `flush` merges what it writes with what is there.

What may still go wrong: a power failure may lose what was written since the last copying, CHECKPOINT_SECONDS and the
time that it takes. A network file system that does not lock properly corrupts the file: it belongs on a local disk.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridge.errors import StartFailed, StoreFailed
from bridge.ports import Merge

VERSION: Final = 1
"""Of the tables (`PRAGMA user_version`)."""

APPLICATION: Final = 0x4D424947
"""`PRAGMA application_id`, "MBIG": tells this file from any other SQLite database."""

CHECKPOINT_SECONDS: Final = 5.0
"""Between copies of the log into the file: what a power failure may cost, against a disk that is always busy."""

LOOK_SECONDS: Final = 0.1
"""Between questions whether another process has written; each takes some microseconds."""

UNKNOWN: Final = -1
"""No data_version is negative."""

SCAN_ROWS: Final = 1_000
"""Read at once while scanning."""


class SqliteStore:
    """See `ports.Store`. Raises StartFailed for a file that cannot be used."""

    lasting = True
    local = True

    def __init__(self, path: Path, *, merge: Merge, patience_seconds: float = 0.05) -> None:
        self._path = path
        self._merge = merge
        self._changes: dict[str, bytes | None] = {}
        self._checkpoint: threading.Thread | None = None
        self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        self._look_at = 0.0
        self._db = _open(path, patience_seconds)
        self._seen = self._data_version()
        """As it was when those who keep values were last told to read again; UNKNOWN where they must be told next."""
        self._overtaken = False
        """Somebody else has written since some of the changes were put."""

    # Reading

    def refresh(self) -> bool:
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        with self._told("read"):
            before, self._seen = self._seen, self._data_version()
        if before == self._seen:
            return False
        self._overtaken = bool(self._changes)
        return True

    def at_hand(self, name: str) -> bool:
        return True

    async def load(self, names: Collection[str]) -> None:
        pass

    def get(self, name: str) -> bytes | None:
        if name in self._changes:
            return self._changes[name]
        with self._told("read"):
            return self._stored(name)

    def _stored(self, name: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM register WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def _data_version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    async def scan(self, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
        changes = {name: value for name, value in self._changes.items() if name.startswith(prefix)}
        after = prefix
        while True:
            with self._told("read"):
                rows = self._db.execute(
                    "SELECT name, value FROM register WHERE name >= ? AND name < ? ORDER BY name LIMIT ?",
                    (after, prefix + "\U0010ffff", SCAN_ROWS),
                ).fetchall()
            for name, value in rows:
                if name not in changes:
                    yield name, bytes(value)
            if len(rows) < SCAN_ROWS:
                break
            after = rows[-1][0] + "\0"
        for name, kept in changes.items():
            if kept is not None:
                yield name, kept

    # Writing

    def put(self, name: str, value: bytes) -> None:
        self._changes[name] = value

    def delete(self, name: str) -> None:
        self._changes[name] = None

    @property
    def dirty(self) -> bool:
        return bool(self._changes)

    async def flush(self) -> None:
        if not self._changes:
            return
        db = self._db
        with self._told("written"):
            db.execute("BEGIN IMMEDIATE")
            try:
                overtaken = self._overtaken or self._data_version() != self._seen
                changes = self._merged_changes() if overtaken else self._changes
                db.executemany(
                    "INSERT INTO register (name, value) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    [(name, value) for name, value in changes.items() if value is not None],
                )
                db.executemany("DELETE FROM register WHERE name = ?", [(n,) for n, v in changes.items() if v is None])
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        if overtaken:
            # What is stored now is not what was put: until all is read again, further changes stand on old values.
            self._look_at, self._seen, self._overtaken = 0.0, UNKNOWN, False
        self._changes.clear()
        if time.monotonic() >= self._checkpoint_at and (self._checkpoint is None or not self._checkpoint.is_alive()):
            self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
            self._checkpoint = threading.Thread(target=_copy_log, args=(self._path,), name="state-checkpoint")
            self._checkpoint.start()

    def _merged_changes(self) -> dict[str, bytes | None]:
        """What is to be written, where another process has written since this one did."""
        made: dict[str, bytes | None] = {}
        for name, value in self._changes.items():
            stored = None if value is None else self._stored(name)
            made[name] = value if value is None or stored is None else self._merge(name, stored, value)
        return made

    def scrub(self) -> bool:
        """Makes what was deleted, and what was overwritten, unreadable in the file; blocks for as long as that takes.

        False where another process keeps it from that; what was deleted is deleted all the same.
        """
        try:
            self._db.execute("VACUUM")  # else it stands in free pages until something else needs the room
            busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        return not busy

    async def close(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.join()
        self._db.close()

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFailed(f"the state in {self._path} cannot be {done}: {error}") from None


def _open(path: Path, patience_seconds: float) -> sqlite3.Connection:
    """The connection, its file made where there is none."""
    if path.is_dir():
        raise StartFailed(f"state.url: {path} is a directory, not a file")
    if not path.parent.is_dir():
        raise StartFailed(f"state.url: the folder {path.parent} does not exist: make it, or name another file")
    db = None
    try:
        path.touch(mode=0o600)  # it names people
    except OSError as error:
        raise StartFailed(f"state.url: {path} cannot be opened: {error.strerror}") from None
    try:
        # Starting may wait for another process; while running nothing may.
        db = sqlite3.connect(path, isolation_level=None, timeout=max(patience_seconds, 5.0))
        _prepare(db, path)
        db.execute(f"PRAGMA busy_timeout = {round(patience_seconds * 1000)}")
        return db
    except BaseException as error:
        if db is not None:
            db.close()
        if not isinstance(error, sqlite3.Error):
            raise
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise StartFailed(
                f"state.url: {path} is damaged, or no SQLite database: put a backup in its place, or move it away to "
                "start with an empty table (`identities import` seeds it)"
            ) from None
        raise StartFailed(f"state.url: {path} cannot be opened: {error}") from None


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION and (application or version or tables):
        raise StartFailed(f"state.url: {path} is a database of something else: name another file")
    if version > VERSION:
        raise StartFailed(
            f"state.url: {path} was written by a newer meisa-bridge (format {version}, this one knows {VERSION}): "
            "run that version, or name another file"
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # a thread does it, so that the event loop never waits for the disk
    if version == 0:
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE IF NOT EXISTS register (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    db.execute("SELECT name FROM register LIMIT 1").fetchall()  # a whole check would read it all: this finds the worst


def _copy_log(path: Path) -> None:
    """Copies the write-ahead log into the file. What it cannot copy now, the next one does."""
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=0.0)
        try:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            db.close()
    except sqlite3.Error:
        pass  # a full or failing disk: the next flush says so
