"""Kills workers with SIGKILL in the middle of a task that saves checkpoints: ``python -m bench.checkpoints``.

Two workers share a place for checkpoints, a directory or, with ``--s3``, a bucket of moto's server. A task of 60 steps
writes each step's result into a file, and saves its position with that file. Whichever worker runs the task is killed
at a random moment, and started again, as often as ``--kills`` says; the other one goes on from the last checkpoint. In
the end the result must be right, no checkpoint may be left, and no more steps may be done than the kills explain.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord, JobState
from bench.machine import local_facts
from cluster.processes import ManagedProcess

STEPS: Final = 60
STEP: Final = 0.1
INTERVAL: Final = 0.2
LEASE: Final = 1.0
BUCKET: Final = "checkpoints"
_CREDENTIAL: Final = "bench/20260101/us-east-1/s3/aws4_request"
EXPLAINED: Final = 1.1
"""Of the steps that are done, without those that kills explain: ten in a hundred may be done twice."""

APP: Final = """
import os, time
from pathlib import Path

from avtomatika_worker import TaskContext, Worker

worker = Worker()


def note(log, word, step):
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word} {step} {os.environ['WORKER_ID']}\\n".encode())
    os.close(descriptor)


@worker.skill(version="1")
def steps(ctx: TaskContext, log: str, count: int, seconds: float):
    results = Path(ctx.files.path_to_sync("results.txt"))
    state = ctx.checkpoint.load() or {"done": 0}
    note(log, "begin", state["done"])
    for step in range(state["done"], count):
        time.sleep(seconds)
        with results.open("a") as file:
            file.write(f"{step}\\n")
        note(log, "step", step)
        ctx.checkpoint.save({"done": step + 1}, files=[results])
    return {"results": [int(line) for line in results.read_text().split()]}
"""


@dataclass(frozen=True)
class Report:
    """What came out. ``steps``: all that were done, those done again included; ``allowed``: the most that may be."""

    store: str
    kills: int
    attempts: int
    steps: int
    allowed: int
    resumed_elsewhere: int
    right: bool
    left: tuple[str, ...]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether everything is as it must be."""
        return self.right and not self.left and self.steps <= self.allowed


class Subject:
    """One of the workers: a process."""

    def __init__(self, name: str, directory: Path, environ: dict[str, str]) -> None:
        self.name = name
        self._directory = directory
        self._environ = {**environ, "WORKER_ID": name}
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker", "--no-health-check"]
        self._process = ManagedProcess(self.name, command, env=self._environ, cwd=self._directory)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()

    @property
    def output(self) -> str:
        """What its current process has written."""
        return self._process.output() if self._process is not None else ""


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's server with a bucket; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 30.0
        while True:
            try:
                _call(port, "PUT", f"/{BUCKET}")
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                break
        yield url
    finally:
        process.kill()
        process.wait()


def _call(port: int, method: str, path: str) -> str:
    """Make a call to moto's server, which checks no signature, and return the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={"Authorization": f"AWS4-HMAC-SHA256 Credential={_CREDENTIAL}"})
        return connection.getresponse().read().decode()


def _objects(url: str) -> list[str]:
    """Return the keys in the bucket."""
    text = _call(int(url.rpartition(":")[2]), "GET", f"/{BUCKET}?list-type=2")
    return [part.partition("<")[0] for part in text.split("<Key>")[1:]]


async def run(kills: int, seed: int, directory: Path, s3: str | None, count: int = STEPS) -> Report:
    """Kill workers ``kills`` times during ``count`` steps, and return how that ended."""
    chance, began = random.Random(seed), time.monotonic()
    (directory / "app.py").write_text(APP, "utf-8")
    log, state = directory / "log", directory / "state"
    log.touch()
    async with EmbeddedOrchestrator(poll_time=5.0, lease=LEASE, max_attempts=10_000) as orchestrator:
        environ = {
            "ORCHESTRATOR_URL": orchestrator.url,
            "WORKER_TOKEN": orchestrator.token or "",
            "WORKER_STATE_DIR": str(state),
            "TASK_FILES_DIR": str(directory / "files"),
            "CHECKPOINT_INTERVAL": str(INTERVAL),
            "HEARTBEAT_INTERVAL": "0.2",
            "REGISTRATION_RETRY_INITIAL_DELAY": "0.05",
        }
        if s3 is not None:
            environ |= {"S3_ENDPOINT_URL": s3, "S3_ACCESS_KEY": "bench", "S3_SECRET_KEY": "bench"}
            environ |= {"S3_DEFAULT_BUCKET": BUCKET}
        workers = {name: Subject(name, directory, environ) for name in ("w1", "w2")}
        for each in workers.values():
            each.start()
        try:
            job = orchestrator.submit("steps", {"log": str(log), "count": count, "seconds": STEP})
            for number in range(kills):
                name = await _kill_one(job, workers, log, chance)
                # Back within its lease it would seem to have the task still, as to real orchestrators.
                await orchestrator.wait_for(partial(_is_free_of, job, name), timeout=30.0)
                workers[name].start()
                print(f"kill {number + 1}: {_count(log, 'step')} steps done", file=sys.stderr, flush=True)
            await job.done(timeout=120.0)
            left = await _left(lambda: _objects(s3) if s3 is not None else _files(state / "checkpoints"))
        finally:
            for each in workers.values():
                each.kill()
        right = job.state is JobState.FINISHED and job.result == {"results": list(range(count))}
        if not right or left:
            print(job.error, *(each.output for each in workers.values()), file=sys.stderr)
    steps = _count(log, "step")
    interval = round(INTERVAL / STEP)
    return Report(
        store="s3" if s3 is not None else "directory",
        kills=kills,
        attempts=job.attempts,
        steps=steps,
        allowed=round(EXPLAINED * count) + kills * interval,
        resumed_elsewhere=_resumed_elsewhere(log),
        right=right,
        left=tuple(left),
        seconds=round(time.monotonic() - began, 1),
    )


def _is_free_of(job: JobRecord, worker: str) -> bool:
    """Whether the orchestrator has given up on a worker, or has the result."""
    return job.state is not JobState.RUNNING or job.worker_id != worker


async def _kill_one(job: JobRecord, workers: dict[str, Subject], log: Path, chance: random.Random) -> str:
    """Kill the worker that runs the task, some time after it has begun, and return its name."""
    begun = _count(log, "begin")
    until = time.monotonic() + 60.0
    while _count(log, "begin") == begun:
        if job.state is JobState.FINISHED or time.monotonic() > until:
            raise RuntimeError(f"the job is {job.state} before all kills: {job.error}")
        await asyncio.sleep(0.005)
    name = _lines(log)[-1].split()[2]
    await asyncio.sleep(chance.uniform(0.0, 4 * STEP))
    workers[name].kill()
    return name


async def _left(found: Any) -> list[str]:
    """Return what is left of checkpoints, once there is time enough to remove them."""
    until = time.monotonic() + 15.0
    while True:
        left = await asyncio.to_thread(found)
        if not left or time.monotonic() > until:
            return list(left)
        await asyncio.sleep(0.1)


def _files(directory: Path) -> list[str]:
    return [str(each.relative_to(directory)) for each in directory.rglob("*") if each.is_file()]


def _lines(log: Path) -> list[str]:
    return log.read_text("utf-8").splitlines()


def _count(log: Path, word: str) -> int:
    return sum(line.startswith(word) for line in _lines(log))


def _resumed_elsewhere(log: Path) -> int:
    """Count the attempts that went on from a checkpoint of the other worker."""
    begins = [line.split() for line in _lines(log) if line.startswith("begin")]
    pairs = itertools.pairwise(begins)
    return sum(later[2] != earlier[2] and int(later[1]) > 0 for earlier, later in pairs)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", type=click.IntRange(0), default=50, show_default=True, help="How often a worker is killed.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides when.")
@click.option("--s3", is_flag=True, help="Keep the checkpoints in a bucket of moto's server.")
@click.option("--output", type=click.Path(path_type=Path), help="Where the JSON goes; without it, it is only shown.")
def main(kills: int, seed: int, s3: bool, output: Path | None) -> None:
    """Kill workers at random moments of a task that saves checkpoints; exit with 1 unless all is as it must be."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        url = stack.enter_context(s3_server()) if s3 else None
        report = asyncio.run(run(kills, seed, Path(name), url))
    facts = {**asdict(report), "seed": seed, "step": STEP, "interval": INTERVAL, "machine": local_facts()}
    facts["load_after"] = os.getloadavg()
    text = json.dumps(facts, indent=2)
    click.echo(text)
    if output is not None:
        output.write_text(text + "\n", "utf-8")
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()
