"""The sides that are compared, and how each is started: on the cores it may use, its log in a file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.stub import TOKEN

ROOT: Final = Path(__file__).parent.parent
CACHE: Final = ROOT / ".cache" / "bench"
APPS: Final = Path(__file__).parent / "apps"
OFFICIAL: Final = "avtomatika-worker==1.0b20"

_ALL_CORES: Final = frozenset(os.sched_getaffinity(0))  # before this process is pinned itself
_STOP_TIMEOUT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Placement:
    """The cores that the measured side may use, and those of the stub and the harness."""

    side: frozenset[int]
    stub: frozenset[int]


FREE: Final = Placement(_ALL_CORES, _ALL_CORES)
"""Everybody may use every core, as people run it."""


def pinned() -> Placement:
    """Return a placement on one core each: steadier figures. Raises SystemExit on a machine with one core."""
    if len(_ALL_CORES) < 2:
        raise SystemExit("pinned benchmarks need two cores: one for the measured side, one for the stub")
    return Placement(frozenset({min(_ALL_CORES)}), frozenset({max(_ALL_CORES)}))


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared. ``python`` runs it; ``is_worker``: it registers, sends heartbeats and so on."""

    name: str
    python: Path
    is_worker: bool = True

    def command(self, url: str, slots: int) -> list[str]:
        """Return what starts it."""
        if not self.is_worker:
            return [str(self.python), "-m", "bench.bare", url, str(slots)]
        return [str(self.python.parent / "worker"), "run", "--app", "bench_app:worker"]


OURS: Final = Side("worker", Path(sys.executable))
BARE: Final = Side("bare loop", Path(sys.executable), is_worker=False)


def official() -> Side:
    """Return the official worker, installed into an environment of its own when it is not there yet."""
    home = CACHE / "official"
    python = home / "bin" / "python"
    stamp = home / f".{OFFICIAL}"
    if not stamp.exists():
        print(f"installing {OFFICIAL} into {home.relative_to(ROOT)} ...", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", OFFICIAL], check=True)
        stamp.touch()
    return Side("official", python)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process had used at one moment: CPU in seconds, memory in MiB."""

    at: float
    cpu: float
    rss: float


class Running:
    """A side that runs."""

    def __init__(self, process: subprocess.Popen[bytes], started: float, log: Path) -> None:
        self.started = started
        self.log = log
        self._process = process
        self._seen = psutil.Process(process.pid)

    def usage(self) -> Usage:
        """Look at the process and its children. Raises RuntimeError when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the process ended with code {self._process.returncode}: {self.tail()}")
        cpu = rss = 0.0
        for each in (self._seen, *self._seen.children(recursive=True)):
            times = each.cpu_times()
            cpu += times.user + times.system
            rss += each.memory_info().rss / 2**20
        return Usage(time.perf_counter(), cpu, rss)

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2_000:]

    @property
    def pid(self) -> int:
        """The process's id, for a profiler."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end, and see to it."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """Return a port that nobody listens at: others may run benchmarks at the same time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Generator[None]:
    """Let this process use these cores only, for a moment: what it starts inherits that, with every thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start_process(command: Sequence[str | Path], env: Mapping[str, str], cores: frozenset[int], name: str) -> Running:
    """Start a process on some cores, with nothing of this process's environment but what it needs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{name.replace(' ', '-')}.log"
    base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with log.open("wb") as output, on_cores(cores):
        started = time.time()
        process = subprocess.Popen(
            [str(each) for each in command], env=base | dict(env), cwd=APPS, stdout=output, stderr=output
        )
    return Running(process, started, log)


@contextlib.contextmanager
def running(side: Side, url: str, *, slots: int, env: Mapping[str, str], placement: Placement) -> Generator[Running]:
    """Run a side on its cores; on leaving it has ended."""
    with tempfile.TemporaryDirectory(prefix="bench-") as state:
        variables = {
            "ORCHESTRATOR_URL": url,
            "WORKER_TOKEN": TOKEN,
            "WORKER_ID": "bench-worker",
            "MAX_CONCURRENT_TASKS": str(slots),
            "WORKER_PORT": str(free_port()),
            "WORKER_STATE_DIR": state,
            "TASK_FILES_DIR": state,
            "WORKER_SHUTDOWN_TIMEOUT": "3",
            "WORKER_SKILLS_DIR": state,
            "PYTHONPATH": str(APPS if side.is_worker else ROOT),
            **env,
        }
        process = start_process(side.command(url, slots), variables, placement.side, side.name)
        try:
            yield process
        finally:
            process.stop()
