"""The schema of a file of undelivered messages, and how any other file is recognized."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from avtomatika_worker.delivery.store_files import UnusableFileError
from avtomatika_worker.errors import StoreError

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
_COLUMNS: Final = [  # as "PRAGMA table_info" lists them: name, type, NOT NULL, default, position in the key
    ("id", "INTEGER", 0, None, 1),
    ("url", "TEXT", 1, None, 0),
    ("kind", "TEXT", 1, None, 0),
    ("task_id", "TEXT", 1, None, 0),
    ("message", "BLOB", 1, None, 0),
    ("created", "REAL", 1, None, 0),
]
_OBJECTS: Final = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the table in an empty file. Raises for a damaged, newer or foreign one: see `SqliteStore.open`."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer version of this worker")
    problem: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise _corrupt(problem)
    objects = connection.execute(_OBJECTS).fetchall()
    columns = [row[1:] for row in connection.execute("PRAGMA table_info(waiting)")]
    if version == 0 and not objects:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
    elif version != _SCHEMA_VERSION or objects != [("table", "waiting")] or columns != _COLUMNS:
        holds = ", ".join(f"{kind} {name}" for kind, name in objects) or "nothing"
        raise UnusableFileError(f"it is not an outbox of this version: version {version}, holding {holds:.200}")


def text(written: bytes) -> str:
    """Decode a text. Invalid bytes must not make the rest unreadable."""
    return written.decode("utf-8", "replace")


def _corrupt(problem: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(problem)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
