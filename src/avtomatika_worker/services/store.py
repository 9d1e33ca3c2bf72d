"""Keeps on disk what could not be delivered yet: one SQLite file for each worker id, owned by one process at a time.

All writing is done by one thread, which puts whatever waits into one transaction: no event loop waits for a disk.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import queue
import sqlite3
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from avtomatika_worker.errors import ConfigError, StoreError

_log: Final = logging.getLogger("avtomatika_worker.outbox")

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE waiting (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL,
    kind TEXT NOT NULL,
    task_id TEXT NOT NULL,
    message BLOB NOT NULL,
    created REAL NOT NULL
)
"""
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LOCK_TIMEOUT: Final = 2.0
"""Seconds that the process before may take to let go of the file."""
_BATCH: Final = 500
"""Writes that share a transaction at most."""


class Kind(enum.StrEnum):
    """What a stored message is."""

    RESULT = "result"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that waits for its orchestrator; ``body`` is its encoded form, ``created`` in Unix seconds."""

    url: str
    kind: Kind
    task_id: str
    body: bytes
    created: float


@dataclass(frozen=True, slots=True)
class _Put:
    message: Message
    done: Future[int]


@dataclass(frozen=True, slots=True)
class _Forget:
    row: int


WRITE_TIMEOUT: Final = 5.0
"""Seconds that the disk has for what is written at the very end."""

_Write = _Put | _Forget | None  # None: no more follow


class Store:
    """The messages of one worker id. Calls may come from any thread; none waits for the disk but `open` and `close`."""

    def __init__(self, directory: Path, worker_id: str, *, temporary: bool = False) -> None:
        """``temporary``: no later process will use this id, so an empty file is removed in the end."""
        self.path: Path = directory / f"outbox-{worker_id}.sqlite3"
        self._worker_id = worker_id
        self._temporary = temporary
        self._writes: queue.SimpleQueue[_Write] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="store", daemon=True)
        self._connection: sqlite3.Connection | None = None

    def open(self) -> list[tuple[int, Message]]:
        """Take the file, made with mode 0600 if need be, and return what waits in it, each with its row.

        A file that SQLite cannot read is set aside, loudly. Raises `ConfigError` when another process has it, and
        `StoreError` when the directory cannot be used.
        """
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _CORRUPT:
                raise self._explained(error) from error
            self._set_aside(error)
            self._connection = self._connect()
        except OSError as error:
            problem = f"{self.path.parent} cannot be used for results: {(error.strerror or str(error)).lower()}"
            raise StoreError(f"{problem}; name a directory that this user may write to") from error
        self._thread.start()
        return self._waiting(self._connection)

    def put(self, message: Message) -> Future[int]:
        """Store a message; the future holds its row once it is safe, or a `StoreError`."""
        done: Future[int] = Future()
        self._writes.put(_Put(message, done))
        return done

    def forget(self, row: int) -> None:
        """Remove a message that needs no storing any more."""
        self._writes.put(_Forget(row))

    def close(self) -> None:
        """Write what waits to be written, and let go of the file."""
        if self._connection is None:
            return
        self._writes.put(None)
        self._thread.join(WRITE_TIMEOUT)
        if self._thread.is_alive():  # the disk does not answer; what it has taken, it has
            return
        with contextlib.suppress(sqlite3.Error):
            empty = not self._waiting(self._connection)
            self._connection.close()
            if self._temporary and empty:
                self.path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ opening

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            # The lock is held until the file is closed, or the process has died: however that comes about.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            self._prepare(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise StoreError(f"{self.path} was written by a newer version of this worker")
        problem: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise _corrupt(problem)
        if version == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def _explained(self, error: sqlite3.DatabaseError) -> Exception:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            problem = f"WORKER_ID={self._worker_id}: another process with this id runs here and owns {self.path}"
            return ConfigError([f"{problem}; give each worker an id of its own, or stop the other one"])
        return StoreError(f"{self.path} cannot be used for results: {error}")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        _log.error(
            "%s is damaged (%s): set aside as %s; the results in it are not sent",
            self.path,
            error,
            aside.name,
            extra={"action": "store_corrupt"},
        )

    @staticmethod
    def _waiting(connection: sqlite3.Connection) -> list[tuple[int, Message]]:
        rows = connection.execute("SELECT id, url, kind, task_id, message, created FROM waiting ORDER BY id")
        known = set(Kind)
        return [
            (row, Message(url, Kind(kind), task_id, body, created))
            for row, url, kind, task_id, body, created in rows
            if kind in known
        ]

    # ------------------------------------------------------------------------------------------------ writing

    def _write_all(self) -> None:
        """Write until told to end; the one place that touches the file after `open`."""
        while True:
            batch = [self._writes.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _BATCH:
                    batch.append(self._writes.get_nowait())
            # A put that was cancelled meanwhile is not done; from here on it cannot be cancelled any more.
            writes = [
                each
                for each in batch
                if each is not None and (isinstance(each, _Forget) or each.done.set_running_or_notify_cancel())
            ]
            if writes:
                self._write(writes)
            if None in batch:
                return

    def _write(self, writes: list[_Put | _Forget]) -> None:
        connection = self._connection
        if connection is None:
            raise RuntimeError("the store is not open")
        stored: list[tuple[_Put, int]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in writes:
                row = _apply(connection, write)
                if isinstance(write, _Put):
                    stored.append((write, row))
            connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._refuse(writes, error)
            return
        for put, row in stored:
            put.done.set_result(row)

    def _refuse(self, writes: list[_Put | _Forget], error: Exception) -> None:
        problem = StoreError(f"{self.path} cannot be written: {error}")
        for write in writes:
            if isinstance(write, _Put):
                write.done.set_exception(problem)


def _apply(connection: sqlite3.Connection, write: _Put | _Forget) -> int:
    if isinstance(write, _Forget):
        connection.execute("DELETE FROM waiting WHERE id = ?", (write.row,))
        return write.row
    message = write.message
    cursor = connection.execute(
        "INSERT INTO waiting (url, kind, task_id, message, created) VALUES (?, ?, ?, ?, ?)",
        (message.url, message.kind.value, message.task_id, message.body, message.created),
    )
    return cursor.lastrowid or 0


def _corrupt(problem: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(problem)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
