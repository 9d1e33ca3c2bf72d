"""Keeps undelivered messages on disk: one SQLite file for each worker id, owned by one process at a time.

A single thread does all writing and combines pending writes into one transaction: no event loop waits for a disk.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import msgspec

from avtomatika_worker._boundaries import caught
from avtomatika_worker.delivery.store_files import UnusableFileError, check_files, set_aside
from avtomatika_worker.delivery.store_schema import prepare, text
from avtomatika_worker.errors import ConfigError, StoreError
from avtomatika_worker.files.ownership import private_directory

_log: Final = logging.getLogger("avtomatika_worker.outbox")

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF
"""The bits of SQLite's extended error codes that hold the primary code."""
_LOCK_TIMEOUT: Final = 2.0
"""Seconds for which the previous process may still hold the file."""
_BATCH: Final = 500
"""Maximum writes in one transaction."""


class Kind(enum.StrEnum):
    """What a stored message is."""

    RESULT = "result"
    EVENT = "event"


class Message(msgspec.Struct, frozen=True):
    """A message for an orchestrator. ``body`` is its encoded form, ``created`` is in Unix seconds."""

    url: str
    kind: Kind
    task_id: str
    body: bytes
    created: float


class _Put(msgspec.Struct, frozen=True):
    message: Message
    done: Future[int]


class _Forget(msgspec.Struct, frozen=True):
    row: int


WRITE_TIMEOUT: Final = 5.0
"""Seconds for the last writes of a worker."""


class _Check(msgspec.Struct, frozen=True):
    done: Future[bool]


_Write = _Put | _Forget | _Check | None  # None: the last one
LOOK_EVERY: Final = 5.0
"""Seconds between two checks that the file still exists, while nothing is written."""


class SqliteStore:
    """The messages of one worker id, for any thread. Only `open`, `check` and `close` wait for the disk."""

    def __init__(
        self, directory: Path, worker_id: str, *, temporary: bool = False, look_every: float = LOOK_EVERY
    ) -> None:
        """``temporary``: no later process will use this id, so `close` removes the file if it is empty."""
        self.path: Path = directory / f"outbox-{worker_id}.sqlite3"
        self._worker_id = worker_id
        self._temporary = temporary
        self._look_every = look_every
        self._writes: queue.SimpleQueue[_Write] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="store", daemon=True)
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._hangs = False
        self._lock = threading.Lock()
        self._writable = False

    def open(self) -> list[tuple[int, Message]]:
        """Open and lock the file, creating it with mode 0600 if necessary, and return its messages with their rows.

        A file that SQLite cannot read, that is not one of our stores or that others may access is set aside, with an
        error in the log. Raises `ConfigError` if another process has the file, `StoreError` if the directory cannot be
        used.
        """
        try:
            self._connection = self._open_or_replace()
            self._identity = self._found()
        except OSError as error:
            problem = f"{self.path.parent} cannot be used for results: {(error.strerror or str(error)).lower()}"
            raise StoreError(f"{problem}; name a directory that this user may write to") from error
        self._thread.start()
        with self._lock:
            self._writable = True
        return self._waiting(self._connection)

    def put(self, message: Message) -> Future[int]:
        """Store a message. The future yields its row once it is safely stored, or raises `StoreError`."""
        put = _Put(message, Future())
        if not self._ask(put):
            self._refuse([put], "it is not open")
        return put.done

    def forget(self, row: int) -> None:
        """Remove a message that no longer needs to be stored."""
        self._ask(_Forget(row))

    def check(self) -> bool:
        """Return whether everything stored is on disk. A file that has disappeared is written again if possible.

        If the disk does not answer within `WRITE_TIMEOUT`, what it has accepted counts as stored.
        """
        try:
            return self.probe().result(WRITE_TIMEOUT)
        except TimeoutError:
            self._hangs = True
            return True

    def probe(self) -> Future[bool]:
        """Return the result of `check` as a future. It is done after all earlier writes."""
        check = _Check(Future())
        if not self._ask(check):
            check.done.set_result(False)
        return check.done

    def _ask(self, write: _Write) -> bool:
        """Pass something to the thread; return False if it would never be done."""
        with self._lock:
            if self._writable:
                self._writes.put(write)
                self._writable = write is not None
                return True
        return False

    def close(self) -> None:
        """Complete pending writes and release the file."""
        if self._ask(None) and not self._hangs:  # a disk that does not answer is left behind
            self._thread.join(WRITE_TIMEOUT)

    # ------------------------------------------------------------------------------------------------ opening

    def _open_or_replace(self) -> sqlite3.Connection:
        """Connect, after setting aside a file that is not a store. Raises OSError, `ConfigError` and `StoreError`."""
        try:
            check_files(self.path)
            return self._connect()
        except UnusableFileError as error:
            set_aside(self.path, error)
        except sqlite3.DatabaseError as error:
            if _code_of(error) not in _CORRUPT:
                raise self._explained(error) from error
            set_aside(self.path, error)
        try:
            return self._connect()
        except UnusableFileError as error:
            raise StoreError(f"{self.path} cannot be used for results: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def _connect(self) -> sqlite3.Connection:
        private_directory(self.path.parent)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self.path.chmod(0o600)  # regardless of the umask, which skills may set
        connection = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.text_factory = text
        try:
            # The lock is held until the file is closed or the process has died, for whatever reason.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            prepare(connection, self.path)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _found(self) -> tuple[int, int] | None:
        """Return the identity of the file at the store's path, or None."""
        try:
            status = self.path.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _make_again(self) -> None:
        """Copy everything to a new file if the old one has disappeared. Raises OSError and `StoreError`.

        The old file is still open, so the messages can be read from it.
        """
        old = self._connection
        if old is None or (self._identity is not None and self._found() == self._identity):
            return
        rows = old.execute("SELECT id, url, kind, task_id, message, created FROM waiting").fetchall()
        new = self._open_or_replace()
        try:
            new.execute("BEGIN IMMEDIATE")
            new.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?)", rows)
            new.execute("COMMIT")
        except BaseException:
            new.close()  # it holds the lock, which the next attempt needs
            raise
        self._connection, self._identity = new, self._found()
        old.close()
        _log.error(
            "%s disappeared and was recreated with %d results and events",
            self.path,
            len(rows),
            extra={"action": "store_made_again"},
        )

    def _explained(self, error: sqlite3.DatabaseError) -> Exception:
        if _code_of(error) == sqlite3.SQLITE_BUSY:
            problem = f"WORKER_ID={self._worker_id}: another process with this id runs here and owns {self.path}"
            return ConfigError([f"{problem}; give each worker an id of its own, or stop the other one"])
        return StoreError(f"{self.path} cannot be used for results: {error}")

    def _waiting(self, connection: sqlite3.Connection) -> list[tuple[int, Message]]:
        rows = connection.execute("SELECT id, url, kind, task_id, message, created FROM waiting ORDER BY id")
        known, found, unreadable = set(Kind), list[tuple[int, Message]](), 0
        for row, url, kind, task_id, body, created in rows:
            if (
                kind in known
                and isinstance(url, str)
                and isinstance(task_id, str)
                and isinstance(body, bytes)
                and isinstance(created, int | float)
            ):
                found.append((row, Message(url, Kind(kind), task_id, body, created)))
            else:
                unreadable += 1
        if unreadable:
            _log.error(
                "%d rows in %s are neither results nor events; they are not sent, and stay there",
                unreadable,
                self.path,
                extra={"action": "store_unreadable"},
            )
        return found

    # ------------------------------------------------------------------------------------------------ writing

    def _write_all(self) -> None:
        """Write until asked to stop. Nothing else uses the file after `open`.

        An unforeseen error fails only the writes that it affects, and whoever waits for those is answered.
        """
        batch: list[_Write] = []
        while None not in batch:
            batch = self._next_batch()
            with caught() as kept:
                self._do(batch)
            if kept.error is not None:
                _log.critical(
                    "the store failed; this is a bug in the worker: %r",
                    kept.error,
                    exc_info=kept.error,
                    extra={"action": "store_fault"},
                )
                self._refuse(batch, kept.error)
        self._release()

    def _release(self) -> None:
        if self._connection is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            with contextlib.closing(self._connection) as connection:
                empty = not connection.execute("SELECT EXISTS (SELECT 1 FROM waiting)").fetchone()[0]
            if self._temporary and empty:
                self.path.unlink()

    def _next_batch(self) -> list[_Write]:
        try:
            batch = [self._writes.get(timeout=self._look_every)]
        except queue.Empty:
            return [_Check(Future())]
        with contextlib.suppress(queue.Empty):
            while len(batch) < _BATCH:
                batch.append(self._writes.get_nowait())
        return batch

    def _do(self, batch: list[_Write]) -> None:
        # Puts that were cancelled meanwhile are skipped; the others can no longer be cancelled.
        writes = [
            each
            for each in batch
            if isinstance(each, _Forget) or (isinstance(each, _Put) and each.done.set_running_or_notify_cancel())
        ]
        if writes:
            self._write(writes)
        for each in batch:
            if isinstance(each, _Check):
                each.done.set_result(self._look())

    def _look(self) -> bool:
        """Return whether the file exists, or has just been written again."""
        try:
            self._make_again()
        except (OSError, sqlite3.Error, StoreError, ConfigError):
            return False
        return True

    def _write(self, writes: list[_Put | _Forget]) -> None:
        try:
            self._make_again()
        except (OSError, sqlite3.Error, StoreError, ConfigError) as error:
            self._refuse(writes, error)
            return
        stored: list[tuple[_Put, int]] = []
        try:
            with self._transaction() as connection:
                for write in writes:
                    row = _apply(connection, write)
                    if isinstance(write, _Put):
                        stored.append((write, row))
        except (sqlite3.Error, OverflowError) as error:
            self._refuse(writes, error)
            return
        for put, row in stored:
            put.done.set_result(row)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        assert self._connection is not None  # noqa: S101 - the thread runs from `open` on
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _refuse(self, writes: Iterable[_Write], why: object) -> None:
        """Fail those of these writes that are not done yet."""
        problem = StoreError(f"{self.path} cannot be written: {str(why) or type(why).__name__}")
        for write in writes:
            if isinstance(write, _Put) and not write.done.done():
                write.done.set_exception(problem)
            elif isinstance(write, _Check) and not write.done.done():
                write.done.set_result(False)


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


def _code_of(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY  # errors raised by Python itself have none
