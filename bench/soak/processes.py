"""The two processes of a soak, their lives, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from bench.soak.app import JOURNAL_VARIABLE, LIFE_VARIABLE
from bench.soak.jobs import JOURNAL, TOKEN, WORKER_ID

ROOT: Final = Path(__file__).resolve().parents[2]
ENDS_WITHIN: Final = 45.0
"""Seconds that a worker may take after SIGTERM (5 of them for its tasks), on a machine that has other work, too."""

ORPHANS_GONE_WITHIN: Final = 10.0
POLL_TIMEOUT: Final = 5

KINDS: Final = ("result", "event")
"""What may wait in the worker's file."""

HANDLES_WITHIN: Final = 10.0
"""Seconds after its start within which a worker, on a busy machine, too, handles signals; Python has to start first."""

_SAMPLE_EVERY: Final = 1.0


@dataclass
class Life:
    """One process from its start to its end. Times are Unix seconds, memory is in MiB."""

    name: str
    began: float
    signal: str | None = None
    signalled: float | None = None
    ended: float | None = None
    code: int | None = None
    caught: bool = True
    """Whether the process had a handler for that signal as it was sent."""
    rss: float = 0.0
    files: int = 0
    stored: list[str] = field(default_factory=list[str])
    """The tasks whose results were in the worker's file when it was killed."""

    @property
    def in_order(self) -> bool:
        """Whether SIGTERM ended it as it should: with 0, or, before it had a handler, at once."""
        assert self.signalled is not None
        had_begun = self.caught or self.signalled - self.began > HANDLES_WITHIN
        return self.code == 0 or (self.code == -signal.SIGTERM and not had_begun)


class Victim:
    """A process that is started again after each of its ends."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], directory: Path) -> None:
        self._name = name
        self.command = command
        self.environment = environment
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self.lives: list[Life] = []
        self.orphans: list[str] = []
        self._watching: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin a life; what it prints is appended to a file."""
        life = Life(f"{self._directory.name}/{self._name}-{len(self.lives) + 1}", time.time())
        environment = {**self.environment, LIFE_VARIABLE: life.name}
        with (self._directory / f"{self._name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command, env=environment, cwd=self._directory, stdout=log, stderr=log
            )
        self.lives.append(life)
        self._watch(self._sample(life, self._process))

    async def end(self, number: signal.Signals, within: float = ENDS_WITHIN) -> Life:
        """End the present life with a signal; a process that does not end is killed, and then has no exit code."""
        life, process = self.lives[-1], self._process
        assert process is not None
        life.signal, life.signalled, life.caught = number.name, time.time(), _catches(process.pid, number)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.send_signal(number)
        try:
            async with asyncio.timeout(within):
                life.code = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        life.ended = time.time()
        self._watch(self._look_for_orphans(life))
        return life

    async def settled(self) -> None:
        """Wait until everything that follows an end has been looked at."""
        await asyncio.gather(*self._watching)

    def kill_all(self) -> None:
        """End whatever is left, when the soak itself is cut short."""
        for life in self.lives:
            for process in _of_life(life.name):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _watch(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _sample(self, life: Life, process: asyncio.subprocess.Process) -> None:
        """Note the most memory and open files of a life, and the end of one that nobody has ended."""
        seen = psutil.Process(process.pid)
        while process.returncode is None:
            with contextlib.suppress(psutil.Error):
                life.rss = max(life.rss, round(seen.memory_info().rss / 2**20, 1))
                life.files = max(life.files, seen.num_fds())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAMPLE_EVERY):
                    await process.wait()
        life.ended = life.ended or time.time()
        if life.signal is None:
            life.code = process.returncode

    async def _look_for_orphans(self, life: Life) -> None:
        """Note the processes that a life has left behind, and end them."""
        left = _of_life(life.name)
        for _ in range(int(ORPHANS_GONE_WITHIN * 2)):
            if not left:
                return
            await asyncio.sleep(0.5)
            left = _of_life(life.name)
        for process in left:
            with contextlib.suppress(psutil.Error):
                self.orphans.append(f"{life.name} ({life.signal}): {' '.join(process.cmdline())[:200]}")
                process.kill()


def _catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal; one that is gone has none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "SigCgt":
                return bool(int(value, 16) >> (number - 1) & 1)
    return False


def _of_life(name: str) -> list[psutil.Process]:
    """Return the processes whose environment names that life."""
    found: list[psutil.Process] = []
    wanted = f"{LIFE_VARIABLE}={name}".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError, psutil.Error):
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(psutil.Process(int(entry.parent.name)))
    return [process for process in found if _running(process)]


def _running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Hold a port that nothing listens on: a process of this user may, and nothing else takes it while none does."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def base_environment() -> dict[str, str]:
    """Return what both processes need of this one's environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}


def worker(
    port: int, directory: Path, app: str = "bench.soak.app:worker", settings: Mapping[str, str] | None = None
) -> Victim:
    """Return a worker, which stores each result before it is sent; ``settings`` come after those of the soak."""
    environment = {
        **base_environment(),
        JOURNAL_VARIABLE: str(directory / JOURNAL),
        "WORKER_ID": WORKER_ID,
        "WORKER_TOKEN": TOKEN,
        "ORCHESTRATOR_URL": f"http://127.0.0.1:{port}",
        "WORKER_STATE_DIR": str(directory / "state"),
        "TASK_FILES_DIR": str(directory / "files"),
        "WORKER_RESULT_DURABILITY": "always",
        "MAX_CONCURRENT_TASKS": "12",
        "WORKER_SKILL_PROCESSES": "3",
        "HEARTBEAT_INTERVAL": "2",
        "TASK_POLL_TIMEOUT": str(POLL_TIMEOUT),
        "WORKER_SHUTDOWN_TIMEOUT": "5",
        "RESULT_RETRY_MAX_DELAY": "5",
        "REGISTRATION_RETRY_MAX_DELAY": "5",
        "LOG_LEVEL": "WARNING",
        "LOG_FORMAT": "json",
        **(settings or {}),
    }
    command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", app]
    return Victim("worker", [*command, "--no-health-check"], environment, directory)


def stored(directory: Path, kind: str) -> list[str]:
    """Return the tasks of which a result or an event, as ``kind`` says, waits in the worker's file.

    A copy is read: whoever opens the file itself puts it in order, which is the next worker's work.
    """
    files = list((directory / "state").glob(f"outbox-{WORKER_ID}.sqlite3*"))
    with tempfile.TemporaryDirectory() as place:
        for file in files:
            if not file.name.endswith("-shm"):
                shutil.copy(file, place)
        copy = Path(place) / f"outbox-{WORKER_ID}.sqlite3"
        if not copy.exists():
            return []
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'waiting'").fetchone() is None:
                return []  # it was killed before it had made the table
            return [row[0] for row in connection.execute("SELECT task_id FROM waiting WHERE kind = ?", (kind,))]
