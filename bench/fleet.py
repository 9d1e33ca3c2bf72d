"""A fleet of light workers against two real orchestrators on one Redis, and what larger fleets would do.

    python -m bench.fleet measure --workers 500     # → bench/results/fleet.json; some minutes
    python -m bench.fleet simulate                  # from the figures there → bench/results/stampede.json
    python -m bench.fleet plot                      # → docs/images/*.svg; needs the dependency group plots

The workers are real ones, fifty to a process; the orchestrators, Redis and the fleet share this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
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
REGISTERED_WITHIN = 60.0  # seconds
SETTLED_AFTER = 20.0
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


def usage(cluster: Cluster, fleet: Fleet) -> Usage:
    """Read the CPU times."""

    def seconds(*pids: int) -> float:
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)

    engines = [engine.process.pid for engine in cluster.engines if engine.process]
    redis = [cluster.redis.process.pid] if cluster.redis.process else []
    return Usage(time.time(), seconds(*engines), seconds(*redis), seconds(*(each.pid for each in fleet.processes)))


class Fleet:
    """Light workers, some processes of them."""

    def __init__(self, cluster: Cluster) -> None:
        self._variables = {
            "WORKER_TOKEN": WORKER_TOKEN,
            "ORCHESTRATORS_CONFIG": json.dumps([{"url": engine.url} for engine in cluster.engines]),
            "MULTI_ORCHESTRATOR_MODE": "ROUND_ROBIN",
        }
        self.processes: list[ManagedProcess] = []
        self.count = 0

    async def grow(self, client: Client, count: int) -> None:
        """Add workers until there are ``count``, a process at a time, or until the orchestrators bear no more."""
        while self.count < count:
            number = min(PER_PROCESS, count - self.count)
            command = [
                sys.executable,
                "-m",
                "bench.fleet_app",
                str(self.count),
                str(number),
                json.dumps(self._variables),
            ]
            name = f"fleet from {self.count}"
            process = ManagedProcess(name, command, env={}, cwd=ROOT, own_session=True)
            self.processes.append(process)
            if not await known(client, self.count + number):
                click.echo(f"no more than {self.count} workers: the next {number} were not registered in time")
                self.processes.pop().kill()
                return
            self.count += number

    def stop(self) -> None:
        """End it."""
        for process in self.processes:
            process.kill()


async def known(client: Client, count: int) -> bool:
    """Wait until the orchestrators know ``count`` workers; return whether they do in time."""
    until = time.monotonic() + REGISTERED_WITHIN
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            if len(await client.workers()) >= count:
                return True
        await asyncio.sleep(0.5)
    return False


def window(cluster: Cluster, fleet: Fleet, before: Usage) -> dict[str, Any]:
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
        "fleet_cpu_ms_per_worker": round(1000 * (after.fleet - before.fleet) / seconds / fleet.count, 2),
    }


def memory(fleet: Fleet) -> dict[str, float]:
    """Return MiB of proportional set size: of the whole fleet, and a worker's part."""
    total = sum(psutil.Process(each.pid).memory_full_info().pss for each in fleet.processes) / 2**20
    return {
        "workers": fleet.count,
        "processes": len(fleet.processes),
        "mib_in_all": round(total),
        "mib_per_worker": round(total / fleet.count, 2),
    }


async def restart(cluster: Cluster, count: int, settle: float = 60.0) -> dict[str, Any]:
    """End both engines at once, let them be started again, and watch the workers come back."""
    wanted = count * len(cluster.engines)
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
        "wanted": wanted,
        "registrations": len(seen),
        "accepted": len(accepted),
        "first_after": round(accepted[0], 1) if accepted else None,
        "all_after": round(accepted[wanted - 1], 1) if len(accepted) >= wanted else None,
        "peak_per_second": max(by_second.values(), default=0),
        "by_second": [by_second[second] for second in range(int(settle))],
    }


async def measure(cluster: Cluster, fleet: Fleet, count: int, seconds: float) -> dict[str, Any]:
    """Measure the fleet at its start, at idle, at load, and when the orchestrators restart."""
    async with client_of([engine.url for engine in cluster.engines], CLIENT_TOKEN) as client:
        before = usage(cluster, fleet)
        await fleet.grow(client, count)
        after = usage(cluster, fleet)
        starting = {"seconds": after.at - before.at, "engine_cpu_seconds": after.engines - before.engines}
        click.echo(f"{fleet.count} workers are registered: {starting}")
        await asyncio.sleep(SETTLED_AFTER)
        held = memory(fleet)
        before = usage(cluster, fleet)
        await asyncio.sleep(seconds)
        idle = window(cluster, fleet, before)
        click.echo(f"idle: {idle}")
        before = usage(cluster, fleet)
        jobs = await run_jobs(client, int(10 * seconds), at_once=20, seconds=0.1)
        load = {**window(cluster, fleet, before), "jobs": dict(jobs.statuses), "given_out_more_than_once": jobs.retried}
        load |= {"jobs_per_second": round(len(jobs.jobs) / jobs.seconds, 1), "seconds_of_a_job": jobs.quantiles()}
        click.echo(f"load: {load}")
        stampede = await restart(cluster, fleet.count)
        click.echo(f"restart: { ({**stampede, 'by_second': '…'}) }")
    return {"memory": held, "starting": starting, "idle": idle, "load": load, "restart": stampede}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure a fleet, simulate larger ones, draw the plots of docs/scale.md."""


@main.command("measure")
@click.option("--workers", "count", type=click.IntRange(1), default=500, show_default=True)
@click.option("--seconds", type=click.FloatRange(5), default=60.0, show_default=True, help="Length of a measurement.")
@click.option("--output", type=click.Path(path_type=Path), default=MEASURED)
def measure_command(count: int, seconds: float, output: Path) -> None:
    """Run a fleet and measure it."""
    facts = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
    }
    with (
        tempfile.TemporaryDirectory(prefix="avtomatika-fleet-", ignore_cleanup_errors=True) as directory,
        running(Path(directory), workers=0, engine_env=ENGINE_ENV) as cluster,
    ):
        fleet = Fleet(cluster)
        try:
            figures = asyncio.run(measure(cluster, fleet, count, seconds))
        finally:
            fleet.stop()
    output.write_text(json.dumps({"machine": facts, **figures}, indent=2) + "\n")
    click.echo(f"written: {output}")


def costs_of(figures: dict[str, Any]) -> stampede.Costs:
    """Return what a worker costs the orchestrators, by what was measured."""
    count, idle, starting = figures["memory"]["workers"], figures["idle"], figures["starting"]
    # Each worker has a link to each of two orchestrators; in the larger fleets it has one.
    links = 2 * count
    per_link = idle["engine_cpu"] / links
    # While the fleet starts, half of it is there already, on average.
    coming = (starting["engine_cpu_seconds"] - starting["seconds"] * idle["engine_cpu"] / 2) / links
    return stampede.Costs(coming_back=coming, idle=per_link)


@main.command("simulate")
def simulate_command() -> None:
    """Simulate restarts under larger fleets, and the measured one for comparison."""
    figures = json.loads(MEASURED.read_text())
    costs = costs_of(figures)
    restart = figures["restart"]
    cases = [(restart["wanted"], restart["first_after"], 2)]
    cases += [(workers, outage, None) for workers in (10_000, 100_000) for outage in (5.0, 120.0)]
    courses = []
    for workers, outage, orchestrators in cases:
        for jitter in (True, False):
            course = stampede.simulate(workers, outage, costs, jitter=jitter, orchestrators=orchestrators)
            quiet = None if course.quiet is None else round(course.quiet - outage, 1)
            seconds = range(max(course.tries) + 1)
            measured = {
                "workers": workers,
                "orchestrators": course.orchestrators,
                "outage": outage,
                "jitter": jitter,
                "peak_per_second": course.peak,
                "quiet_after": quiet,
                "given_up": course.given_up,
            }
            click.echo(str(measured))
            courses.append({**measured, "tries": [course.tries[second] for second in seconds]})
    SIMULATED.write_text(json.dumps({"costs": dataclasses.asdict(costs), "courses": courses}) + "\n")
    click.echo(f"written: {SIMULATED}")


@main.command("plot")
def plot_command() -> None:
    """Draw the plots."""
    from bench import fleet_plots

    for path in fleet_plots.draw(json.loads(MEASURED.read_text()), json.loads(SIMULATED.read_text())):
        click.echo(f"written: {path}")


if __name__ == "__main__":
    main()
