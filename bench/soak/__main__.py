"""Kill orchestrator and worker, break calls, and check that nothing is lost.

    python -m bench.soak --minutes 30

Both are processes of their own. The orchestrator keeps its history in a file, so that a kill loses nothing of it; the
worker runs with WORKER_RESULT_DURABILITY=always. At random moments one of them is killed (the worker is sometimes
asked to end, by SIGTERM) and started again, and one call in a hundred breaks in one of twelve ways. At the end the
history has to be complete. Exits with 1 and a list of what is missing when it is not. One seed decides everything that
is left to chance here; what the system's scheduler makes of it differs from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avtomatika_worker import __version__
from bench.machine import local_facts
from bench.soak import orchestrator, processes
from bench.soak.check import Check, counts
from bench.soak.disturbance import Disturbance, Timetable, until
from bench.soak.history import connect
from bench.soak.jobs import HISTORY
from bench.soak.processes import Victim

RESULT: Final = processes.ROOT / "bench" / "results" / "soak-faults.json"
STARTS_WITHIN: Final = 60.0
SHOWN: Final = 50
"""Faults that are printed; the report has as many."""


@dataclass(frozen=True)
class Plan:
    """What a soak does; times are in seconds."""

    seed: int
    seconds: float
    rate: float
    share: float
    kill_every: float
    patience: float
    silence: float
    drain: float

    @property
    def timetable(self) -> Timetable:
        """When processes end."""
        return Timetable(self.seed, self.seconds, self.kill_every)


async def soak(plan: Plan, directory: Path) -> tuple[list[str], dict[str, Any]]:
    """Run and disturb both processes, wait for the rest, end them; return the faults and the figures."""
    with processes.reserved_port() as port:
        options = orchestrator.Options(
            str(directory), port, plan.seed, plan.rate, plan.share, plan.patience, silence=plan.silence
        )
        other = Victim("orchestrator", orchestrator.command(options), processes.base_environment(), directory)
        worker = processes.worker(port, directory)
        began = time.monotonic()
        try:
            await other.start()
            await worker.start()
            if not await until(lambda: outcomes(directory) > 0, STARTS_WITHIN):
                raise RuntimeError(f"no outcome of any job within {STARTS_WITHIN:.0f} s: see {directory}")
            await Disturbance(plan.timetable, directory, worker, other).go_on()
            enough = time.time()
            (directory / orchestrator.ENOUGH).touch()
            drained = await until(lambda: settled(directory), plan.drain)
            await worker.end(signal.SIGTERM)
            await other.end(signal.SIGTERM)
            await worker.settled()
            await other.settled()
        finally:
            worker.kill_all()
            other.kill_all()
    findings = Check(directory, plan.seed, enough, worker.lives, other.lives).run()
    faults = findings.faults + [f"left behind by {orphan}" for orphan in worker.orphans]
    for kind in processes.KINDS:
        faults += [f"left on disk: a {kind} of {task}" for task in processes.stored(directory, kind)]
    ends = {
        "worker": Counter(str(life.signal) for life in worker.lives),
        "orchestrator": Counter(str(life.signal) for life in other.lives[:-1]),
    }
    seconds = round(time.monotonic() - began, 1)
    return faults, {"ends": ends, "seconds_run": seconds, "drained": drained, **counts(directory), **findings.figures}


def settled(directory: Path) -> bool:
    """Return whether every job has an outcome, and nothing waits in the worker's file: events may follow a result."""
    if _count(directory, "SELECT count(*) FROM jobs WHERE state IN ('waiting', 'running')"):
        return False
    try:
        return not any(processes.stored(directory, kind) for kind in processes.KINDS)
    except (OSError, sqlite3.DatabaseError):  # the copy of a file that is being written to
        return False


def outcomes(directory: Path) -> int:
    """Count the jobs that have one."""
    return _count(directory, "SELECT count(*) FROM jobs WHERE state IN ('done', 'failed')")


def _count(directory: Path, query: str) -> int:
    with contextlib.closing(connect(directory / HISTORY)) as db:
        return int(db.execute(query).fetchone()[0])


def read_plan(arguments: list[str] | None) -> tuple[Plan, Path, bool]:
    """Return the plan, where the report goes, and whether the files of the run are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="decides what is left to chance; printed")
    parser.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    parser.add_argument("--broken", type=float, default=0.01, help="share of the calls that break")
    parser.add_argument("--kill-every", type=float, default=50.0, help="seconds between two ends of each process")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds after which a task is handed out again")
    parser.add_argument("--silence", type=float, default=40.0, help="seconds for which a silent answer is silent")
    parser.add_argument("--drain", type=float, default=180.0, help="seconds that the rest may take at the end")
    parser.add_argument("--report", type=Path, default=RESULT)
    parser.add_argument(
        "--keep", action="store_true", help="keep history, journal and logs; they are when a fault shows"
    )
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else secrets.randbelow(10**6)
    plan = Plan(
        seed, options.minutes * 60, options.rate, options.broken, options.kill_every, options.patience,
        options.silence, options.drain,
    )  # fmt: skip
    return plan, options.report, options.keep


def main(arguments: list[str] | None = None) -> int:
    """Run, print and write the report, return the exit code."""
    plan, path, keep = read_plan(arguments)
    print(f"seed {plan.seed}", flush=True)
    machine = local_facts()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else both processes would be left behind
    faults, figures = asyncio.run(soak(plan, directory))
    report = {
        "machine": machine,
        "worker": __version__,
        "seed": plan.seed,
        "minutes": plan.seconds / 60,
        "complete": not faults,
        **figures,
        "faults": faults[:SHOWN],
    }
    text = json.dumps(report, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", "utf-8")
    print(text)
    if faults:
        print(f"{len(faults)} faults; the first {SHOWN}:", *faults[:SHOWN], sep="\n  ")
    if keep or faults:
        print(f"history, journal and logs: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
