"""One release's part of an endurance run: an orchestrator, a worker, the wire between them, and jobs."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.testing.history import Entry, Kind
from bench.endure.client import Client, Job, client_of
from bench.endure.judge import Evidence, Judge
from bench.endure.wire import Wire
from bench.endure.workload import task_of
from bench.soak import faults, processes
from bench.soak.disturbance import Disturbance, Timetable, until
from bench.soak.jobs import TOKEN
from bench.soak.processes import Life, Victim
from cluster.environments import python_of
from cluster.processes import free_port
from cluster.releases import PROTOCOLS
from cluster.system import BUCKET, s3_settings

ORCHESTRATOR: Final = processes.ROOT / "tests" / "e2e" / "orchestrator_app.py"
FINDINGS: Final = "findings.txt"
"""What was wrong at a release, with the story of the tasks concerned."""

STARTS_WITHIN: Final = 60.0
LEASE: Final = 60.0
"""Seconds for which a released orchestrator knows a worker that it does not hear."""

_TURN: Final = 0.5


@dataclass(frozen=True)
class Plan:
    """What happens at one release; in seconds, and jobs a second. Where a range is given, the seed decides."""

    release: str
    seed: int
    seconds: float
    rate: float
    broken: float
    kill_every: float
    cut_every: float
    silence: float
    drain: float

    @property
    def own_seed(self) -> int:
        """A seed that depends on the release, but not on which others take part."""
        return random.Random(f"{self.seed}/{self.release}").randrange(10**9)

    def settings(self) -> tuple[float, dict[str, str]]:
        """Return how long the orchestrator waits for a task, and settings of the worker."""
        chance = random.Random(f"{self.own_seed}/settings")
        timeout = float(chance.randint(5, 20))
        return timeout, {
            "MAX_CONCURRENT_TASKS": str(chance.randint(4, 12)),
            "WORKER_ENABLE_WEBSOCKETS": chance.choice(["true", "false"]),
            "LOG_LEVEL": "INFO",
        }


class Released(Victim):
    """A published orchestrator, which is written down as it starts and ends."""

    wire: Wire
    client: Client

    async def start(self) -> None:
        """Begin a life."""
        await super().start()
        self.client.life = len(self.lives)
        self._note(Kind.ORCHESTRATOR_STARTED, {"lease": LEASE})

    async def end(self, number: signal.Signals, within: float = processes.ENDS_WITHIN) -> Life:
        """End the present life."""
        life = await super().end(number, within)
        self._note(Kind.ORCHESTRATOR_STOPPED, {})
        return life

    def _note(self, kind: Kind, facts: dict[str, Any]) -> None:
        self.wire.entries.append(Entry(at=time.time(), kind=kind, orchestrator=str(self.wire.target), facts=facts))


class Watched(Victim):
    """A worker whose lives the wire knows."""

    wire: Wire

    async def start(self) -> None:
        """Begin a life."""
        await super().start()
        self.wire.life = self.lives[-1].name


class Course:
    """One release's part of a run."""

    def __init__(self, plan: Plan, directory: Path, s3: str) -> None:
        self._plan = plan
        self._directory = directory
        self._s3 = s3
        self._timeout, self._settings = plan.settings()

    async def run(self) -> dict[str, Any]:
        """Run jobs and disturb them, wait for the rest, judge; return the figures, with the findings among them."""
        plan, port = self._plan, free_port()
        deck, chance = faults.Deck(plan.own_seed, plan.broken, 0), random.Random(f"{plan.own_seed}/wire")
        wire = Wire(port, PROTOCOLS[plan.release], deck, chance, plan.silence)
        began = time.monotonic()
        async with wire.open() as entrance, client_of(f"http://127.0.0.1:{port}") as client:
            other, worker = self._orchestrator(port, wire, client), self._worker(entrance, wire)
            try:
                await other.start()
                await self._ready()
                await worker.start()
                await self._disturb(worker, other, wire, client)
                drained = await self._drain(client, other, wire)
                for victim in (worker, other):
                    await victim.end(signal.SIGTERM)
                for victim in (worker, other):
                    await victim.settled()
            finally:
                worker.kill_all()
                other.kill_all()
        left = [f"a {kind} of task {task}" for kind in processes.KINDS for task in self._stored(kind)]
        jobs = list(client.jobs.values())
        return {
            **self._facts(worker, other, wire),
            "seconds_run": round(time.monotonic() - began, 1),
            "drained": drained,
            **self._judged(Evidence.of(self._directory, wire, jobs, worker.lives, other.lives, left), worker.orphans),
        }

    def _judged(self, evidence: Evidence, orphans: list[str]) -> dict[str, Any]:
        judge = Judge(evidence)
        found = judge.findings()
        texts = [str(violation) for violation in found] + [f"left behind by {orphan}" for orphan in orphans]
        if texts:
            entries = "\n".join(str(entry) for entry in judge.history.entries)
            (self._directory / "history.txt").write_text(entries + "\n", "utf-8")
            (self._directory / FINDINGS).write_text("\n".join([*texts, "", *judge.history.story(found)]), "utf-8")
        return {**judge.figures, "findings": texts}

    def _facts(self, worker: Victim, other: Victim, wire: Wire) -> dict[str, Any]:
        return {
            "release": self._plan.release,
            "task_timeout": self._timeout,
            "settings": self._settings,
            "ends": {
                "worker": dict(Counter(str(life.signal) for life in worker.lives[:-1])),
                "orchestrator": dict(Counter(str(life.signal) for life in other.lives[:-1])),
            },
            "cuts": len(wire.cuts),
            "calls": dict(wire.calls),
            "broken": dict(Counter(kind for _, _, kind in wire.broken)),
            "refused_by_limits": sum(
                entry.facts.get("code") == 429 and not entry.facts.get("fault") for entry in wire.entries
            ),
        }

    def _orchestrator(self, port: int, wire: Wire, client: Client) -> Released:
        overrides = {
            "RATE_LIMITING_ENABLED": True,
            "GLOBAL_WORKER_TOKEN": TOKEN,
            "WORKER_TIMEOUT_SECONDS": int(self._timeout),
            "WATCHER_INTERVAL_SECONDS": 1,
        }
        environment = {name: value for name, value in processes.base_environment().items() if name != "PYTHONPATH"} | {
            "PORT": str(port),
            "OVERRIDES": json.dumps(overrides),
            "OTEL_SDK_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
        }
        command = [str(python_of(self._plan.release)), str(ORCHESTRATOR)]
        other = Released("orchestrator", command, environment, self._directory)
        other.wire, other.client = wire, client
        return other

    def _worker(self, entrance: int, wire: Wire) -> Watched:
        settings = {**self._settings, **s3_settings(self._s3)}
        plain = processes.worker(entrance, self._directory, "bench.endure.app:worker", settings)
        worker = Watched("worker", plain.command, plain.environment, self._directory)
        worker.wire = wire
        return worker

    async def _ready(self) -> None:
        log = self._directory / "orchestrator.log"
        if not await until(lambda: "READY" in log.read_text("utf-8", "replace"), STARTS_WITHIN):
            raise RuntimeError(f"the orchestrator {self._plan.release} does not start: see {log}")

    async def _disturb(self, worker: Victim, other: Victim, wire: Wire, client: Client) -> None:
        timetable = Timetable(self._plan.own_seed, self._plan.seconds, self._plan.kill_every)
        disturbance = Disturbance(timetable, self._directory, worker, other)
        async with asyncio.TaskGroup() as group:
            jobs = group.create_task(self._make_jobs(client))
            cuts = group.create_task(self._cut(wire))
            await disturbance.go_on()
            jobs.cancel()
            cuts.cancel()

    async def _make_jobs(self, client: Client) -> None:
        """Submit jobs until cancelled, and cancel some."""
        chance, number = random.Random(f"{self._plan.own_seed}/rate"), 0
        async with asyncio.TaskGroup() as group:
            while True:
                number += 1
                task = task_of(self._plan.own_seed, number, self._plan.release, self._timeout, BUCKET)
                job = await client.submit(task)
                if job is not None and task.cancel_after is not None:
                    group.create_task(_cancel_after(client, job, task.cancel_after))
                await asyncio.sleep(chance.expovariate(self._plan.rate))

    async def _cut(self, wire: Wire) -> None:
        chance = random.Random(f"{self._plan.own_seed}/cuts")
        while True:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * self._plan.cut_every)
            await wire.cut(chance.choice([0.1, 1.0, 4.0, 8.0]))

    async def _drain(self, client: Client, other: Victim, wire: Wire) -> bool:
        """Break nothing more; wait until every job has ended and nothing waits in the worker's file."""
        wire.honest = True
        ends = time.monotonic() + self._plan.drain
        while time.monotonic() < ends:
            waiting = [job for job in client.jobs.values() if not job.state and job.orchestrator == len(other.lives)]
            for job in waiting[:10]:
                await client.look(job)
            if not waiting and not await asyncio.to_thread(self._waits):
                return True
            await asyncio.sleep(_TURN * (1 + min(len(waiting), 10)))
        return False

    def _waits(self) -> bool:
        try:
            return any(self._stored(kind) for kind in processes.KINDS)
        except (OSError, sqlite3.DatabaseError):  # the copy of a file that is being written to
            return True

    def _stored(self, kind: str) -> list[str]:
        return processes.stored(self._directory, kind)


async def _cancel_after(client: Client, job: Job, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await client.cancel(job)
