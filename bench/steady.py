"""Run a worker for a while at moderate load, and watch its memory and its open files.

    python -m bench.steady --minutes 10

The worker is a process of its own; the embedded orchestrator lives in this one. The load is a mix of everything that
a worker does, and once a minute the orchestrator is away for some seconds, so that the outbox and its file, the
re-registration and the reconnecting WebSocket have their share. Figures go to ``bench/results/steady-*.json``. Exits
with 1 when a job was lost or the worker grew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import psutil

from avtomatika_worker import __version__
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobRecord, JobState

RESULTS = Path(__file__).resolve().parent / "results"
SAMPLE_EVERY = 2.0
OUTAGE_EVERY, OUTAGE = 60.0, 4.0
WARM_UP = 0.3
"""Share of the run that is no part of the verdict: pools, caches and the allocator fill up."""

GROWTH_ALLOWED = 0.5
"""MiB a minute of resident memory in the rest of the run; what is more is called a leak."""

MIX = (
    ("echo", {"text": "hello", "numbers": [1, 2.5, 3]}, 70),
    ("report", {"steps": 5}, 12),
    ("block", {"seconds": 0.02}, 10),
    ("large", {"size": 100_000}, 5),
    ("fail", {}, 3),
)


@dataclass(frozen=True)
class Sample:
    """The worker's process at a moment (``at``: seconds after the start); MiB of memory."""

    at: float
    rss: float
    files: int
    threads: int
    done: int


@dataclass
class Count:
    """What became of the jobs."""

    submitted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    accepted_twice: int = 0
    retried: int = 0

    @property
    def lost(self) -> int:
        """Jobs that have no end."""
        return self.submitted - self.states.total()

    def add(self, job: JobRecord) -> None:
        """Count a job that has ended."""
        self.states[job.state.value] += 1
        accepted = sum(1 for each in job.results_received if each.status == "accepted")
        self.accepted_twice += accepted > job.attempts
        self.retried += job.attempts > 1


async def submit(orchestrator: EmbeddedOrchestrator, rate: float, until: float, count: Count) -> list[JobRecord]:
    """Submit jobs at ``rate`` a second until then; return those that have not ended."""
    chance = random.Random(1)
    weights = [weight for _, _, weight in MIX]
    pending: list[JobRecord] = []
    following = time.monotonic()
    while time.monotonic() < until:
        skill, params, _ = chance.choices(MIX, weights)[0]
        pending.append(orchestrator.submit(skill, params))
        count.submitted += 1
        following += 1 / rate
        await asyncio.sleep(max(0.0, following - time.monotonic()))
        if count.submitted % 50 == 0:
            pending = settle(pending, count)
    return pending


def settle(pending: list[JobRecord], count: Count) -> list[JobRecord]:
    """Count the jobs that have ended; return the others."""
    for job in pending:
        if job.state.final:
            count.add(job)
    return [job for job in pending if not job.state.final]


async def disturb(orchestrator: EmbeddedOrchestrator) -> None:
    """Be away now and then, and in between lose the answer of a result, as networks do."""
    while True:
        await asyncio.sleep(OUTAGE_EVERY / 2)
        orchestrator.inject(Fault(call="result", kind="drop_after", times=3), Fault(call="event", kind="reset"))
        await asyncio.sleep(OUTAGE_EVERY / 2)
        await orchestrator.stop()
        await asyncio.sleep(OUTAGE)
        await orchestrator.start()


async def watch(process: psutil.Process, began: float, count: Count, samples: list[Sample]) -> None:
    """Sample the worker's process until cancelled."""
    while True:
        with process.oneshot():
            rss, files, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
        at = round(time.monotonic() - began, 1)
        samples.append(Sample(at, round(rss / 2**20, 2), files, threads, count.states.total()))
        await asyncio.sleep(SAMPLE_EVERY)


def verdict(samples: list[Sample]) -> dict[str, Any]:
    """Say how memory, open files and threads went after the warm-up."""
    late = samples[int(len(samples) * WARM_UP) :]
    half = len(late) // 2
    slope = linear_regression([sample.at / 60 for sample in late], [sample.rss for sample in late]).slope
    figures: dict[str, Any] = {
        "rss_mib": {"start": samples[0].rss, "after_warm_up": late[0].rss, "end": late[-1].rss},
        "rss_mib_per_minute": round(slope, 3),
    }
    for name in ("rss", "files", "threads"):
        values = [getattr(sample, name) for sample in late]
        figures[f"{name}_median"] = {"earlier": median(values[:half]), "later": median(values[half:])}
        figures[f"{name}_most"] = max(values)
    files = figures["files_median"]
    figures["flat"] = slope < GROWTH_ALLOWED and files["later"] <= files["earlier"] + 2
    return figures


@contextlib.asynccontextmanager
async def worker_process(url: str, token: str, directory: str):
    """Run the worker as a process of its own; stop it as an operator does."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "SOAK_TRACE") if name in os.environ},
        "PYTHONPATH": str(RESULTS.parents[1]),
        "WORKER_ID": "steady",
        "WORKER_TOKEN": token,
        "ORCHESTRATOR_URL": url,
        "WORKER_STATE_DIR": directory,
        "TASK_FILES_DIR": directory + "/files",
        "MAX_CONCURRENT_TASKS": "20",
        "HEARTBEAT_INTERVAL": "2",
        "WORKER_ENABLE_WEBSOCKETS": "true",
        "WORKER_PORT": "0",
        "LOG_LEVEL": "ERROR",
    }
    command = ("-m", "avtomatika_worker.cli", "run", "--app", "bench.steady_app:worker", "--no-health-check")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, env=environment, cwd=directory)
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        code = await process.wait()
        print(f"the worker ended with {code}", file=sys.stderr)


async def run(minutes: float, rate: float) -> dict[str, Any]:
    """Soak; return the report."""
    samples: list[Sample] = []
    count = Count()
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedOrchestrator(poll_time=5.0, lease=20.0, task_timeout=20.0) as orchestrator:
            async with worker_process(orchestrator.url, orchestrator.token or "", directory) as process:
                await orchestrator.wait_for_worker("steady", timeout=60)
                began = time.monotonic()
                around = [
                    asyncio.create_task(watch(process, began, count, samples)),
                    asyncio.create_task(disturb(orchestrator)),
                ]
                rest = await submit(orchestrator, rate, began + minutes * 60, count)
                for task in around:
                    task.cancel()
                await asyncio.gather(*around, return_exceptions=True)
                with contextlib.suppress(RuntimeError):
                    await orchestrator.start()  # when an outage was cut short
                await wait_for(rest, count)
                memory = await orchestrator.submit("memory").done()
            left = waiting_on_disk(Path(directory))
    return {
        "worker": __version__,
        "python": platform.python_version(),
        "minutes": minutes,
        "jobs_per_second": rate,
        "seconds": round(time.monotonic() - began, 1),
        "jobs": {
            "submitted": count.submitted,
            **count.states,
            "lost": count.lost,
            "accepted_twice": count.accepted_twice,
            "handed_out_again": count.retried,
        },
        "process": verdict(samples),
        "problems": sorted({problem.text for problem in orchestrator.problems}),
        "left_on_disk": left,
        **(memory.result or {}),
        "samples": [asdict(sample) for sample in samples],
    }


def waiting_on_disk(directory: Path) -> int:
    """Count the results and events that the worker left in its file."""
    with contextlib.closing(sqlite3.connect(directory / "outbox-steady.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM waiting").fetchone()[0])


async def wait_for(jobs: list[JobRecord], count: Count) -> None:
    """Wait until all have ended, and count them; what has not ended in a minute is lost."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            for job in jobs:
                await job.done(timeout=None)
    settle(jobs, count)


def main() -> int:
    """Run, write the figures, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=40.0, help="jobs a second")
    options = parser.parse_args()
    report = asyncio.run(run(options.minutes, options.rate))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"steady-{time.strftime('%Y%m%d-%H%M%S')}.json"
    # One line for each sample keeps the file readable.
    samples = ",\n    ".join(json.dumps(sample) for sample in report.pop("samples"))
    path.write_text(json.dumps(report, indent=2)[:-2] + f',\n  "samples": [\n    {samples}\n  ]\n}}\n', "utf-8")
    print(json.dumps({name: report[name] for name in ("jobs", "process", "problems", "left_on_disk")}, indent=2))
    print(path)
    failed = report["jobs"].get(JobState.FAILED.value, 0)
    return 0 if report["process"]["flat"] and not report["jobs"]["lost"] and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
