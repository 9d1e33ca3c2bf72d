"""``make cluster``: run a whole system until Ctrl-C, or run jobs on it and say how they ended."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from cluster.environments import InstallationError
from cluster.faults import schedule
from cluster.jobs import Outcome, client_of, run_jobs
from cluster.processes import ProcessError
from cluster.redis_server import RedisMissingError
from cluster.system import CLIENT_TOKEN, ORCHESTRATOR, Cluster, ClusterError, running

console = Console(highlight=False, soft_wrap=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="run N jobs, say how they ended, and stop")
    parser.add_argument("--faults", action="store_true", help="meanwhile kill an engine, a worker, Redis's connections")
    parser.add_argument("--at-once", type=int, default=40, metavar="N", help="jobs at the same time (40)")
    parser.add_argument("--engines", type=int, default=2, metavar="N", help="orchestrators (2)")
    parser.add_argument("--workers", type=int, default=3, metavar="N", help="workers (3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    for name in ("at_once", "engines", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    if options.jobs < 0 or (options.faults and options.jobs < 4):
        parser.error("--jobs must be 0 or more, and 4 or more with --faults")
    return options


def describe(cluster: Cluster) -> None:
    """Say where things are."""
    table = Table(box=None, pad_edge=False)
    for column in ("what", "where", "process"):
        table.add_column(column)
    for member in cluster.members:
        path = "/health" if member in cluster.workers else ""
        table.add_row(member.name, member.url + path, str(member.process.pid if member.process else ""))
    console.print(table)
    first = cluster.engines[0].url
    console.print(f"""
What they keep is in {cluster.directory} and goes when they do. A job:

  curl -s {first}/api/v1/jobs/run -H 'X-Client-Token: {CLIENT_TOKEN}' -H 'Content-Type: application/json' \\
    -d '{{"initial_data": {{"skill": "pause", "params": {{"seconds": 1, "number": 1}}}}}}'
  curl -s {first}/api/v1/jobs/JOB_ID -H 'X-Client-Token: {CLIENT_TOKEN}'
""")


async def work(cluster: Cluster, options: argparse.Namespace, report: Callable[[str], None]) -> Outcome:
    """Run the jobs; ``report`` hears of each fault."""
    on_ended: Callable[[int], None] = schedule(cluster, options.jobs, report) if options.faults else lambda _: None
    async with client_of([engine.url for engine in cluster.engines], CLIENT_TOKEN) as client:
        return await run_jobs(client, options.jobs, at_once=options.at_once, on_ended=on_ended)


def run(cluster: Cluster, options: argparse.Namespace) -> bool:
    """Run the jobs, and say and write what was asked for; return whether all are finished."""
    faults: list[str] = []

    def report(fault: str) -> None:
        faults.append(fault)
        console.print(fault)

    outcome = asyncio.run(work(cluster, options, report))
    if options.output:
        write(options.output, cluster, outcome, faults)
    return report(cluster, outcome)


def report(cluster: Cluster, outcome: Outcome) -> bool:
    """Say how the jobs ended, by the orchestrators' count; return whether all are finished."""
    counts = ", ".join(f"{count} {status}" for status, count in outcome.statuses.most_common())
    rate = len(outcome.jobs) / outcome.seconds
    console.print(f"{len(outcome.jobs)} jobs in {outcome.seconds:.1f} s ({rate:.0f}/s): {counts}")
    console.print(f"{outcome.retried} were given out more than once; the longest took {outcome.longest:.1f} s")
    for member in cluster.members:
        if member.restarts:
            console.print(f"{member.name} was started again {member.restarts} times")
    for job in outcome.unfinished[:10]:
        console.print(f"job {job.id}: {job.status} {job.error}", style="red")
    return not outcome.unfinished


def write(path: Path, cluster: Cluster, outcome: Outcome, faults: list[str]) -> None:
    """Write the figures as JSON."""
    figures = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "orchestrator": ORCHESTRATOR,
        "engines": len(cluster.engines),
        "workers": len(cluster.workers),
        "jobs": len(outcome.jobs),
        "statuses": dict(outcome.statuses),
        "seconds": round(outcome.seconds, 1),
        "given_out_more_than_once": outcome.retried,
        "seconds_of_a_job": outcome.quantiles(),
        "faults": faults,
        "started_again": {member.name: member.restarts for member in cluster.members if member.restarts},
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


def end(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave, as after Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the command; return the exit code."""
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGINT may be ignored by what started this
        signal.signal(number, end)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="avtomatika-cluster-", ignore_cleanup_errors=True) as directory,
            running(Path(directory), engines=options.engines, workers=options.workers) as cluster,
        ):
            describe(cluster)
            if options.jobs:
                return 0 if run(cluster, options) else 1
            console.print("Running; Ctrl-C ends everything.")
            while True:  # not signal.pause(): a signal that another thread gets would not end that
                time.sleep(0.5)
    except (ClusterError, InstallationError, ProcessError, RedisMissingError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("\nEverything has ended.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
