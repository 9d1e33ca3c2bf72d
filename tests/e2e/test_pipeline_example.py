"""examples/pipeline as its README runs it: a published orchestrator on Redis, workers, and a client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cluster.environments import ROOT, InstallationError, python_of
from cluster.processes import ManagedProcess, free_port
from cluster.redis_server import READY, redis_command

PIPELINE = ROOT / "examples" / "pipeline"
TEXT = "the cat and the dog\nand the bird\nsaw a cat\n" * 5
START_TIMEOUT = 30.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ManagedProcess]]:
    """Start processes that end with the test, the newest first, and wait for a line of theirs."""
    processes: list[ManagedProcess] = []

    def start(name: str, *command: str, ready: str, env: Mapping[str, str] | None = None) -> ManagedProcess:
        process = ManagedProcess(name, command, env=env or {}, cwd=tmp_path)
        processes.append(process)
        process.wait_for_line(lambda line: ready in line, timeout=START_TIMEOUT)
        return process

    yield start
    for process in reversed(processes):
        process.kill()


@pytest.fixture
def python() -> str:
    try:
        return str(python_of("1.0b30", "redis"))
    except InstallationError as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


def submit(url: str, *texts: Path) -> str:
    command = [sys.executable, str(PIPELINE / "submit.py"), *map(str, texts)]
    environment = {"PATH": os.defpath, "ORCHESTRATOR_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_job_goes_through_all_steps_and_what_waits_outlives_the_orchestrator(
    start: Callable[..., ManagedProcess], python: str, tmp_path: Path
) -> None:
    redis_port, port = free_port(), free_port()
    texts = [tmp_path / "one.txt", tmp_path / "two.txt", tmp_path / "short.txt"]
    for path, text in zip(texts, ("the cat and the dog", "and the bird saw the cat", "hello"), strict=True):
        path.write_text(text, "utf-8")
    start("redis", *redis_command(redis_port, tmp_path), ready=READY)
    orchestrator_env = {
        "API_PORT": str(port),
        "REDIS_PORT": str(redis_port),
        "CLIENT_TOKEN": "client-token",
        "GLOBAL_WORKER_TOKEN": "worker-token",
        "OTEL_SDK_DISABLED": "true",
    }

    def start_orchestrator() -> ManagedProcess:
        command = (python, str(PIPELINE / "orchestrator.py"))
        return start("orchestrator", *command, ready="Press CTRL+C", env=orchestrator_env)

    orchestrator = start_orchestrator()
    url = f"http://127.0.0.1:{port}"
    worker_env = {
        "PYTHONPATH": str(PIPELINE),
        "ORCHESTRATOR_URL": url,
        "WORKER_TOKEN": "worker-token",
        "LOG_FORMAT": "json",
        "TASK_FILES_DIR": str(tmp_path / "files"),
        "WORKER_STATE_DIR": str(tmp_path / "state"),
    }
    run = (sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "worker:worker", "--no-health-check")
    # One worker: of several, one that is idle may take a plain task from the queue of another, and 1.0b30 then ignores
    # its result ("worker_mismatch").
    start("worker", *run, ready='"registered"', env={**worker_env, "WORKER_ID": "one"})
    expected = 'finished {"words": 11, "most_frequent": ["the", "and", "cat"]}\n'
    assert submit(url, *texts[:2]) == expected
    assert submit(url, texts[2]) == 'rejected {"words": 1, "most_frequent": ["hello"]}\n'
    assert "violated contract" not in orchestrator.output()
    orchestrator.kill()
    start_orchestrator()
    assert submit(url, *texts[:2]) == expected
