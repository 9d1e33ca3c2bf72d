"""A fleet of light workers against two real orchestrators on one Redis, and what larger fleets would do.

    python -m bench.fleet measure --workers 500     # → bench/results/fleet.json; some minutes
    python -m bench.fleet simulate                  # from the figures there → bench/results/stampede.json
    python -m bench.fleet plot                      # → docs/images/*.svg; needs the extra [plots]

The workers are real ones, fifty to a process; the orchestrators, Redis and the fleet share this machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psutil

from bench import stampede
from cluster.jobs import Client, client_of, run_jobs
from cluster.processes import ManagedProcess
from cluster.system import CLIENT_TOKEN, WORKER_TOKEN, Cluster, Member, running

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
MEASURED, SIMULATED = RESULTS / "fleet.json", RESULTS / "stampede.json"
PER_PROCESS = 50
ENGINE_ENV = {
    "WORKER_POLL_TIMEOUT_SECONDS": "30",  # the engine's default; make cluster has less
    "WORKER_TIMEOUT_SECONDS": "60",
    "WATCHER_INTERVAL_SECONDS": "20",
    "ACCESS_LOG": "access.log",
}
LINE = re.compile(r'^([\d.]+) .*?"(\w+) (\S+) [^"]*" (\d+)')
KINDS = (
    ("registration", re.compile(r"/workers/register$")),
    ("poll", re.compile(r"/tasks/next$")),
    ("heartbeat", re.compile(r"^PATCH .*/workers/[^/]+$")),
    ("result", re.compile(r"/tasks/result$")),
    ("client", re.compile(r"/api/")),
)


@dataclass(frozen=True)
class Request:
    """An answered request, from an engine's access log; ``at`` is in Unix seconds."""

    at: float
    kind: str
    status: int


def requests(engine: Member) -> Iterator[Request]:
    """Yield what an engine has answered."""
    path = engine.directory / "access.log"
    for line in path.read_text().splitlines() if path.exists() else ():
        if found := LINE.match(line):
            at, method, target, status = found.groups()
            name = f"{method} {target.partition('?')[0]}"
            kind = next((kind for kind, pattern in KINDS if pattern.search(name)), "other")
            yield Request(float(at), kind, int(status))


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far, by whom."""

    at: float
    engines: float
    redis: float
    fleet: float


def usage(cluster: Cluster, fleet: list[ManagedProcess]) -> Usage:
    """Read the CPU times."""

    def seconds(*pids: int) -> float:
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)

    engines = [engine.process.pid for engine in cluster.engines if engine.process]
    redis = [cluster.redis.process.pid] if cluster.redis.process else []
    return Usage(time.time(), seconds(*engines), seconds(*redis), seconds(*(each.pid for each in fleet)))


@contextmanager
def fleet_of(cluster: Cluster, count: int) -> Iterator[list[ManagedProcess]]:
    """Run ``count`` workers."""
    told = {
        "WORKER_TOKEN": WORKER_TOKEN,
        "ORCHESTRATORS_CONFIG": json.dumps([{"url": engine.url} for engine in cluster.engines]),
        "MULTI_ORCHESTRATOR_MODE": "ROUND_ROBIN",
    }
    with ExitStack() as stack:
        processes = []
        for first in range(0, count, PER_PROCESS):
            number = min(PER_PROCESS, count - first)
            command = [sys.executable, "-m", "bench.fleet_app", str(first), str(number), json.dumps(told)]
            process = ManagedProcess(f"fleet from {first}", command, env={}, cwd=ROOT, own_session=True)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


async def all_registered(client: Client, count: int, timeout: float = 300.0) -> float:
    """Wait until the orchestrators know every worker; return the seconds that took."""
    began = time.monotonic()
    while len(await client.workers()) < count:
        if time.monotonic() - began > timeout:
            raise click.ClickException(
                f"{len(await client.workers())} of {count} workers are there after {timeout:.0f} s"
            )
        await asyncio.sleep(1.0)
    return time.monotonic() - began


def window(cluster: Cluster, fleet: list[ManagedProcess], before: Usage, count: int) -> dict[str, Any]:
    """Return what has happened since ``before``, per second."""
    after = usage(cluster, fleet)
    seconds = after.at - before.at
    seen = Counter(
        request.kind for engine in cluster.engines for request in requests(engine) if before.at <= request.at < after.at
    )
    return {
        "seconds": round(seconds, 1),
        "requests_per_second": {kind: round(number / seconds, 2) for kind, number in sorted(seen.items())},
        "requests_per_second_in_all": round(seen.total() / seconds, 1),
        "engine_cpu": round((after.engines - before.engines) / seconds, 3),
        "redis_cpu": round((after.redis - before.redis) / seconds, 3),
        "fleet_cpu": round((after.fleet - before.fleet) / seconds, 3),
        "fleet_cpu_ms_per_worker": round(1000 * (after.fleet - before.fleet) / seconds / count, 2),
    }


def memory(fleet: list[ManagedProcess], count: int) -> dict[str, float]:
    """Return MiB: each worker's part in its process, proportional set size."""
    total = sum(psutil.Process(each.pid).memory_full_info().pss for each in fleet) / 2**20
    return {
        "workers": count,
        "processes": len(fleet),
        "mib_in_all": round(total),
        "mib_per_worker": round(total / count, 2),
    }


async def restart(cluster: Cluster, count: int, settle: float = 60.0) -> dict[str, Any]:
    """End both engines at once, let them be started again, and watch the workers come back."""
    began = time.time()
    for engine in cluster.engines:
        engine.kill()
    await asyncio.sleep(settle)
    seen = [
        (request.at - began, request.status)
        for engine in cluster.engines
        for request in requests(engine)
        if request.kind == "registration" and request.at >= began
    ]
    accepted = sorted(at for at, status in seen if status < 300)
    by_second = Counter(int(at) for at, _ in seen)
    return {
        "registrations": len(seen),
        "accepted": len(accepted),
        "wanted": count * len(cluster.engines),
        "first_after": round(accepted[0], 1),
        "all_after": round(accepted[count * len(cluster.engines) - 1], 1)
        if len(accepted) >= count * len(cluster.engines)
        else None,
        "peak_per_second": max(by_second.values()),
        "by_second": [by_second[second] for second in range(int(settle))],
    }


async def measure(cluster: Cluster, fleet: list[ManagedProcess], count: int, seconds: float) -> dict[str, Any]:
    """Measure the fleet at idle, at load, and when the orchestrators restart."""
    async with client_of([engine.url for engine in cluster.engines], CLIENT_TOKEN) as client:
        began = usage(cluster, [])
        took = await all_registered(client, count)
        registered = usage(cluster, [])
        click.echo(f"{count} workers are registered after {took:.0f} s")
        await asyncio.sleep(20.0)
        held = memory(fleet, count)
        before = usage(cluster, fleet)
        await asyncio.sleep(seconds)
        idle = window(cluster, fleet, before, count)
        click.echo(f"idle: {idle}")
        before = usage(cluster, fleet)
        jobs = await run_jobs(client, int(10 * seconds), at_once=20, seconds=0.1)
        for job in jobs.unfinished[:3]:
            click.echo(f"{job.status}: {job.error}")
        load = {**window(cluster, fleet, before, count), "jobs": dict(jobs.statuses), "retried": jobs.retried}
        load |= {"jobs_per_second": round(len(jobs.jobs) / jobs.seconds, 1), "seconds_of_a_job": jobs.quantiles()}
        click.echo(f"load: {load}")
        stampede_seen = await restart(cluster, count)
        click.echo(f"restart: { ({**stampede_seen, 'by_second': '…'}) }")
    starting = {"seconds": round(took, 1), "engine_cpu_seconds": round(registered.engines - began.engines, 1)}
    return {"memory": held, "starting": starting, "idle": idle, "load": load, "restart": stampede_seen}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure a fleet, simulate larger ones, draw the plots of docs/scale.md."""


@main.command("measure")
@click.option("--workers", "count", type=click.IntRange(1), default=500, show_default=True)
@click.option("--seconds", type=click.FloatRange(5), default=60.0, show_default=True, help="Length of a measurement.")
@click.option("--output", type=click.Path(path_type=Path), default=MEASURED)
def measure_command(count: int, seconds: float, output: Path) -> None:
    """Run a fleet and measure it."""
    import os
    import platform

    facts = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
    }
    with (
        tempfile.TemporaryDirectory(prefix="avtomatika-fleet-", ignore_cleanup_errors=True) as directory,
        running(Path(directory), workers=0, engine_env=ENGINE_ENV) as cluster,
        fleet_of(cluster, count) as fleet,
    ):
        try:
            figures = asyncio.run(measure(cluster, fleet, count, seconds))
        except BaseException:
            click.echo("".join(each.output()[-800:] for each in [*fleet, *cluster.engines]))
            raise
    output.write_text(json.dumps({"machine": facts, **figures}, indent=2) + "\n")
    click.echo(f"written: {output}")


if __name__ == "__main__":
    main()
