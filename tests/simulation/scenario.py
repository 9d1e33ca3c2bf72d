"""What a seed stands for: orchestrators, jobs and faults, and what the worker is configured with."""

import random
from dataclasses import dataclass, field
from typing import Any

from avtomatika_worker.devserver.orchestrator_settings import DEFAULT_RATE_LIMITS
from simulation import faults

SPAN = 120.0
"""Seconds in which jobs are submitted and faults strike."""

VERSIONS = ["1.0b7", "1.0b10", "1.0b11", "1.0b12", "1.0b13", "1.0b14", "1.0b15", "1.0b16", "1.0b17"]


@dataclass(frozen=True)
class Job:
    """A job, submitted at a time to an orchestrator, and perhaps cancelled some seconds later."""

    at: float
    orchestrator: int
    skill: str
    params: dict[str, Any] = field(hash=False)
    cancelled_after: float | None = None
    deadline: float | None = None

    @property
    def work(self):
        """The seconds that it takes."""
        return self.params.get("seconds", 0.0) * self.params.get("events", 1)


@dataclass(frozen=True)
class Scenario:
    """A run, as far as it is not left to the schedule's lot."""

    seed: int
    versions: tuple[str, ...]
    jobs: tuple[Job, ...]
    faults: tuple[Any, ...]
    settings: dict[str, Any] = field(hash=False)
    options: dict[str, Any] = field(hash=False, default_factory=dict)

    @property
    def work(self):
        """The seconds that all jobs take, one after the other."""
        return sum(each.work for each in self.jobs)

    def __str__(self):
        lines = [f"seed {self.seed}: orchestrators {', '.join(self.versions)}; {self.settings}; {self.options}"]
        lines += [f"  {each}" for each in sorted([*self.jobs, *self.faults], key=lambda each: each.at)]
        return "\n".join(lines)


def draw(seed):
    """Return the scenario of a seed."""
    lot = random.Random(f"scenario {seed}")
    versions = tuple(lot.choice(VERSIONS) for _ in range(lot.choice([1, 1, 2, 3])))
    mode = lot.choice(["FAILOVER", "ROUND_ROBIN"])
    served = 1 if mode == "FAILOVER" else len(versions)  # the others only stand in
    jobs = tuple(_job(lot, number, served) for number in range(lot.randint(3, 25)))
    struck = faults.draw(lot, lot.choice([0, 0, 1, 2, 3, 5, 8]), len(versions), SPAN)
    if struck:
        struck += faults.more(random.Random(f"more {seed}"), len(versions), SPAN)
    settings = {
        "max_concurrent_tasks": lot.choice([1, 2, 5, 10]),
        "heartbeat_interval": lot.choice([5.0, 10.0, 20.0]),
        "enable_websockets": lot.random() < 0.5,
        "multi_orchestrator_mode": mode,
        "shutdown_timeout": lot.choice([2.0, 10.0]),
        "task_poll_timeout": 30.0,
        "lease_lost_after": lot.choice([None, None, 60.0]),
    }
    options: dict[str, Any] = {}
    if lot.random() < 0.25:
        options |= {"issue_tokens": True, "token_lifetime": lot.choice([40.0, 3600.0])}
    if lot.random() < 0.25:
        options["rate_limits"] = DEFAULT_RATE_LIMITS
    if lot.random() < 0.25:
        options["heartbeat_jitter_ms"] = lot.choice([-2000, 500, 3000])
    if lot.random() < 0.25:
        options["retry_delay"] = 2.0
    if lot.random() < 0.3:
        options |= {"reassign_running": True, "task_timeout": lot.choice([10.0, 40.0, 120.0])}
    return Scenario(seed, versions, jobs, struck, settings, options)


def _job(lot, number, orchestrators):
    at, which = round(lot.uniform(0.0, SPAN) * lot.choice([0.1, 1.0]), 3), lot.randrange(orchestrators)
    skill = lot.choice(["quick", "quick", "slow", "chatty", "flaky", "stubborn"])
    params: dict[str, Any] = {"n": number, "at": f"o{which}"}
    if skill in {"slow", "stubborn"}:
        params["seconds"] = round(lot.choice([0.1, 2.0, 30.0, 30.0, 100.0]) * lot.uniform(0.5, 1.5), 3)
    if skill == "chatty":
        params |= {"events": lot.randint(1, 12), "seconds": round(lot.uniform(0.0, 1.0), 3)}
    if skill == "flaky":
        params["failures"] = lot.randint(0, 3)
    cancelled = round(lot.uniform(0.0, 5.0), 3) if lot.random() < 0.2 else None
    deadline = round(lot.uniform(1.0, 60.0), 3) if lot.random() < 0.05 else None
    return Job(at, which, skill, params, cancelled, deadline)
