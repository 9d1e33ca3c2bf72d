"""What the orchestrator of a soak knows, in a file: SIGKILL loses nothing of it.

Every change is committed before the call that caused it is answered. The file's pages belong to the system then, so no
sync is needed: processes are killed here, not the machine.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.soak.jobs import Job, fingerprint

NONCE: Final = 65.0
"""Seconds for which what has come once is refused; later it is taken again, and counts once."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (run INTEGER PRIMARY KEY, listening REAL, registered REAL, polled REAL);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'waiting', task TEXT, expires REAL,
    tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS open_jobs ON jobs (state) WHERE state IN ('waiting', 'running');
CREATE TABLE IF NOT EXISTS dispatches (
    task TEXT PRIMARY KEY, number INTEGER NOT NULL, at REAL NOT NULL, expires REAL NOT NULL, fault TEXT,
    why TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, task TEXT NOT NULL, job TEXT NOT NULL, status TEXT NOT NULL,
    code TEXT, message TEXT, fingerprint TEXT NOT NULL, sample TEXT NOT NULL, signature TEXT NOT NULL, fault TEXT,
    verdict TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS signatures ON results (signature);
CREATE INDEX IF NOT EXISTS by_task ON results (task);
CREATE TABLE IF NOT EXISTS events (
    event_id TEXT PRIMARY KEY, at REAL NOT NULL, task TEXT NOT NULL, step INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS faults (at REAL NOT NULL, call TEXT NOT NULL, kind TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (run INTEGER NOT NULL, call TEXT NOT NULL, count INTEGER, PRIMARY KEY (run, call));
CREATE TABLE IF NOT EXISTS problems (at REAL NOT NULL, text TEXT NOT NULL);
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and make its tables where there are none."""
    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.executescript(_SCHEMA)
    return connection


@dataclass(frozen=True, slots=True)
class Handed:
    """A task as it was handed out."""

    task: str
    number: int


class History:
    """The orchestrator's side of the file."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path)
        cursor = self._db.execute("INSERT INTO runs (listening) VALUES (NULL)")
        self.run = cursor.lastrowid or 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def mark(self, what: str) -> None:
        """Note that this run listens, has a registration, or has a poll, for the first time."""
        self._db.execute(f"UPDATE runs SET {what} = ? WHERE run = ? AND {what} IS NULL", (time.time(), self.run))  # noqa: S608 - a column

    def last_number(self) -> int:
        """Return the number of the newest job, 0 where there is none."""
        return int(self._db.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()[0])

    def add_job(self, number: int) -> None:
        """Add a job that waits."""
        self._db.execute("INSERT INTO jobs (number) VALUES (?)", (number,))

    def waiting(self) -> list[int]:
        """Return the jobs that nobody runs."""
        return [row[0] for row in self._db.execute("SELECT number FROM jobs WHERE state = 'waiting' ORDER BY number")]

    def open_jobs(self) -> int:
        """Count the jobs without an outcome."""
        query = "SELECT count(*) FROM jobs WHERE state IN ('waiting', 'running')"
        return int(self._db.execute(query).fetchone()[0])

    def hand_out(self, job: Job, patience: float, fault: str | None) -> Handed:
        """Note that a job goes out under a new id, for which an outcome is awaited for ``patience`` seconds."""
        now = time.time()
        tries = int(self._db.execute("SELECT tries FROM jobs WHERE number = ?", (job.number,)).fetchone()[0]) + 1
        handed = Handed(f"task-{job.number}-{tries}", job.number)
        self._db.execute("BEGIN")
        self._db.execute(
            "UPDATE jobs SET state = 'running', task = ?, tries = ?, expires = ? WHERE number = ?",
            (handed.task, tries, now + patience, job.number),
        )
        self._db.execute(
            "INSERT INTO dispatches VALUES (?, ?, ?, ?, ?, ?)",
            (handed.task, job.number, now, now + patience, fault, "again" if tries > 1 else "first"),
        )
        self._db.execute("COMMIT")
        return handed

    def expire(self) -> list[int]:
        """Give up waiting for tasks that take too long; return their jobs, which wait again."""
        query = "UPDATE jobs SET state = 'waiting' WHERE state = 'running' AND expires < ? RETURNING number"
        return [row[0] for row in self._db.execute(query, (time.time(),)).fetchall()]

    def job_of_task(self, task: str) -> tuple[int, str, str] | None:
        """Return number, state and newest task of the job that a task belongs to."""
        query = "SELECT j.number, j.state, j.task FROM dispatches d JOIN jobs j USING (number) WHERE d.task = ?"
        row: tuple[int, str, str] | None = self._db.execute(query, (task,)).fetchone()
        return row

    def add_result(self, message: dict[str, Any], verdict: str, state: str | None, fault: str | None) -> None:
        """Note a result and what it was taken for; ``state`` is that of its job from now on, None for no change."""
        error = message.get("error") or {}
        data = message.get("data") or {}
        row = (
            time.time(), message["task_id"], message["job_id"], message["status"], error.get("code"),
            str(error.get("message"))[:300], fingerprint(data), json.dumps(data)[:300],
            message["security"]["signature"], fault, verdict,
        )  # fmt: skip
        self._db.execute("BEGIN")
        self._db.execute(
            "INSERT INTO results (at, task, job, status, code, message, fingerprint, sample, signature, fault, verdict)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        if state is not None:
            self._db.execute("UPDATE jobs SET state = ? WHERE task = ?", (state, message["task_id"]))
        self._db.execute("COMMIT")

    def replayed(self, signature: str) -> bool:
        """Return whether a result with this signature has come before."""
        return self._db.execute("SELECT 1 FROM results WHERE signature = ?", (signature,)).fetchone() is not None

    def add_event(self, event_id: str, task: str, step: int) -> bool:
        """Note a custom event; return whether it may come: one that has come a moment ago is refused as a replay."""
        now = time.time()
        if self._db.execute("SELECT 1 FROM events WHERE event_id = ? AND at > ?", (event_id, now - NONCE)).fetchone():
            return False
        self._db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", (event_id, now, task, step))
        return True

    def add_fault(self, call: str, kind: str) -> None:
        """Note that a call was broken."""
        self._db.execute("INSERT INTO faults VALUES (?, ?, ?)", (time.time(), call, kind))

    def faults(self) -> int:
        """Count the calls that were broken so far."""
        return int(self._db.execute("SELECT count(*) FROM faults").fetchone()[0])

    def add_problem(self, text: str) -> None:
        """Note what no worker may do."""
        self._db.execute("INSERT INTO problems VALUES (?, ?)", (time.time(), text))

    def count_calls(self, calls: dict[str, int]) -> None:
        """Write down how many calls there were in this run; a kill loses a second of that."""
        rows = [(self.run, call, count) for call, count in calls.items()]
        self._db.executemany("INSERT OR REPLACE INTO calls VALUES (?, ?, ?)", rows)
