"""Orchestrators and workers as processes, started when a test first needs them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.environments import InstallationError, python_of
from cluster.processes import ManagedProcess, ProcessError, free_port

HERE = Path(__file__).resolve().parent
START_TIMEOUT = 30.0
WORKER_TOKEN = "worker-token"
_SECRET = re.compile(rf"{WORKER_TOKEN}|client-token|\b[0-9a-f]{{64}}\b|X-Amz-Signature")
"""Tokens, presigned URLs, and what looks like a signature: 64 hex digits."""


@dataclass(frozen=True)
class Orchestrator:
    """A running orchestrator."""

    version: str
    url: str
    process: ManagedProcess

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True)
class RunningWorker:
    """A running worker; ``prefix`` stands before the names of its skills, ``marks`` is where they leave files."""

    id: str
    prefix: str
    marks: Path
    process: ManagedProcess

    def skill(self, name: str) -> str:
        """Return the full name of a skill."""
        return self.prefix + name


@dataclass
class Fleet:
    """All processes of a test session. ``stop`` ends them."""

    directory: Path
    processes: list[ManagedProcess] = field(default_factory=list)
    _orchestrators: dict[str, Orchestrator] = field(default_factory=dict)
    _workers: dict[str, RunningWorker] = field(default_factory=dict)
    _failures: dict[str, Exception] = field(default_factory=dict)

    def orchestrator(self, version: str) -> Orchestrator:
        """Return the orchestrator of this version that tests share. What keeps it from starting is tried once only."""
        if version in self._failures:
            raise self._failures[version]
        if version not in self._orchestrators:
            try:
                self._orchestrators[version] = self.start_orchestrator(version)
            except (InstallationError, ProcessError) as error:
                self._failures[version] = error
                raise
        return self._orchestrators[version]

    def worker(self, orchestrator: Orchestrator) -> RunningWorker:
        """Return the worker that tests at this orchestrator share: 20 slots, commands over the WebSocket.

        Its heartbeats are rare: what comes with them comes late.
        """
        if orchestrator.url not in self._workers:
            self._workers[orchestrator.url] = self.start_worker(
                orchestrator,
                "shared",
                WORKER_ENABLE_WEBSOCKETS="true",
                MAX_CONCURRENT_TASKS="20",
                HEARTBEAT_INTERVAL="40",
            )
        return self._workers[orchestrator.url]

    def start_orchestrator(
        self,
        version: str,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        extras: tuple[str, ...] = (),
        **overrides: Any,
    ) -> Orchestrator:
        """Start an orchestrator of its own, at a ``port`` or at any; rate limits are off.

        ``overrides`` are names of its configuration.
        """
        python = python_of(version, *extras)
        port = port or free_port()
        variables = {"PORT": str(port), "OVERRIDES": json.dumps(overrides), "OTEL_SDK_DISABLED": "true", **(env or {})}
        process = self._start(f"orchestrator {version}", [str(python), str(HERE / "orchestrator_app.py")], variables)
        process.wait_for_line(lambda line: line.startswith("READY"), timeout=START_TIMEOUT)
        return Orchestrator(version, f"http://127.0.0.1:{port}", process)

    def start_worker(
        self,
        orchestrator: Orchestrator,
        name: str,
        *,
        skills_of: RunningWorker | None = None,
        app: str = "worker_app",
        **settings: str,
    ) -> RunningWorker:
        """Start a worker of its own and wait until it is ready; ``settings`` are environment variables.

        Its skills have names of their own, or those of the worker ``skills_of``.
        """
        prefix = skills_of.prefix if skills_of else f"{name}-"
        marks = self.directory / f"{orchestrator.version}-{name}-{len(self.processes)}"
        marks.mkdir()
        worker_id = f"e2e-{name}"
        env = {
            "PYTHONPATH": str(HERE),
            "PYTHONWARNINGS": "default",
            "WORKER_ID": worker_id,
            "WORKER_TOKEN": WORKER_TOKEN,
            "ORCHESTRATOR_URL": orchestrator.url,
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "DEBUG",
            "TASK_FILES_DIR": str(marks / "files"),
            "WORKER_STATE_DIR": str(marks / "state"),
            "SKILL_PREFIX": prefix,
            "MARKS_DIR": str(marks),
            **settings,
        }
        command = [
            sys.executable,
            "-m",
            "avtomatika_worker.cli",
            "run",
            "--app",
            f"{app}:worker",
            "--no-health-check",
        ]
        before = orchestrator.process.line_count
        process = self._start(f"worker {worker_id} at {orchestrator.version}", command, env, cwd=marks)
        process.wait_for_line(lambda line: _action(line) == "registered", timeout=START_TIMEOUT)
        if settings.get("WORKER_ENABLE_WEBSOCKETS") == "true":
            opened = f"WebSocket connection registered for worker {worker_id}"
            orchestrator.process.wait_for_line(lambda line: opened in line, timeout=START_TIMEOUT, since=before)
        return RunningWorker(worker_id, prefix, marks, process)

    def leaked_secrets(self) -> list[str]:
        """Return the lines of workers, at DEBUG too, that hold what nobody may read: tokens, signatures."""
        lines = [
            line for each in self.processes if each.name.startswith("worker") for line in each.output().splitlines()
        ]
        return [line for line in lines if _SECRET.search(line)]

    def stop(self) -> None:
        """End all processes."""
        for process in reversed(self.processes):
            process.kill()

    def _start(self, name: str, command: list[str], env: dict[str, str], *, cwd: Path | None = None) -> ManagedProcess:
        process = ManagedProcess(name, command, env=env, cwd=cwd or self.directory)
        self.processes.append(process)
        return process


def _action(line: str) -> object:
    """Return the ``action`` of a record in the worker's log."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record.get("action") if isinstance(record, dict) else None
