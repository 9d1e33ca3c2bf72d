"""Jobs as a client would submit them: to any orchestrator that answers, and counted at the orchestrators afterwards."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

ENDED = frozenset({"finished", "failed", "quarantined", "cancelled"})
PAUSE = 0.1
LONGEST_PAUSE = 1.0  # seconds between two looks at a job: every look costs the orchestrators as much as a poll
UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class Job:
    """A job as an orchestrator describes it; ``seconds`` is the time it took, seen from the client."""

    id: str
    status: str
    error: str
    retries: int
    data: dict[str, Any]
    seconds: float = 0.0


class Client:
    """A client of several orchestrators that are one system: it asks the next one when one does not answer."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = itertools.cycle(urls)
        self._patience = 60.0

    async def submit(self, skill: str, params: dict[str, Any]) -> str:
        """Submit a job and return its id: from now on an orchestrator has promised it.

        A submission whose answer is lost is made again, so there may be one job more than was asked for.
        """
        body = {"initial_data": {"skill": skill, "params": params}}
        job_id: str = (await self._call("POST", "/api/v1/jobs/run", body))["job_id"]
        return job_id

    async def job(self, job_id: str) -> Job:
        """Return the job as it is now."""
        raw = await self._call("GET", f"/api/v1/jobs/{job_id}")
        data = raw.get("state_history") or {}
        return Job(raw["id"], raw["status"], raw.get("error_message") or "", raw.get("retry_count") or 0, data)

    async def wait(self, job_id: str, timeout: float) -> Job:
        """Return the job once it has ended, or as it is after ``timeout`` seconds."""
        until, pause = time.monotonic() + timeout, PAUSE
        while True:
            await asyncio.sleep(pause)
            job = await self.job(job_id)
            if job.status in ENDED or time.monotonic() >= until:
                return job
            pause = min(2 * pause, LONGEST_PAUSE)

    async def workers(self) -> list[dict[str, Any]]:
        """Return the orchestrators' records of workers."""
        records: list[dict[str, Any]] = await self._call("GET", "/api/v1/workers")
        return records

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with asyncio.timeout(self._patience):
            while True:
                try:
                    async with self._session.request(method, next(self._urls) + path, json=body) as answer:
                        if answer.status < 300:
                            return await answer.json(content_type=None)
                        if answer.status < 500:
                            raise RuntimeError(f"{method} {path}: HTTP {answer.status}: {await answer.text()}")
                except UNREACHABLE:
                    pass
                await asyncio.sleep(PAUSE)


@asynccontextmanager
async def client_of(urls: Sequence[str], token: str) -> AsyncIterator[Client]:
    """Provide a client of the orchestrators at ``urls``."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(headers={"X-Client-Token": token}, timeout=timeout) as session:
        yield Client(session, urls)


@dataclass(frozen=True)
class Outcome:
    """How jobs have ended, by the orchestrators' count."""

    jobs: tuple[Job, ...]
    seconds: float

    @property
    def statuses(self) -> Counter[str]:
        """How many jobs have which status."""
        return Counter(job.status for job in self.jobs)

    @property
    def retried(self) -> int:
        """How many jobs were given to a worker more than once."""
        return sum(job.retries > 0 for job in self.jobs)

    @property
    def longest(self) -> float:
        """Seconds that the slowest job took."""
        return max((job.seconds for job in self.jobs), default=0.0)

    def quantiles(self) -> dict[str, float]:
        """Return the seconds that half of the jobs, 99 % of them and the slowest took at most."""
        ordered = sorted(job.seconds for job in self.jobs)
        at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {name: round(ordered[math.ceil(share * len(ordered)) - 1], 2) for name, share in at.items()}

    @property
    def unfinished(self) -> list[Job]:
        """The jobs that are not finished."""
        return [job for job in self.jobs if job.status != "finished"]


async def run_jobs(
    client: Client,
    count: int,
    *,
    at_once: int = 40,
    seconds: float = 0.2,
    timeout: float = 120.0,
    on_ended: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Run ``count`` jobs, ``at_once`` of them at a time; every tenth writes a file to the object store.

    ``on_ended`` is called with how many have ended. A job that has not ended after ``timeout`` counts with its last
    status.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    numbers = iter(range(count))
    jobs: list[Job] = []

    async def one_after_another() -> None:
        for number in numbers:
            skill, params = ("write_report", {}) if number % 10 == 9 else ("pause", {"seconds": seconds})
            submitted = clock()
            job_id = await client.submit(skill, {"number": number, **params})
            job = await client.wait(job_id, timeout)
            jobs.append(replace(job, seconds=clock() - submitted))
            on_ended(len(jobs))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_another())
    return Outcome(tuple(jobs), clock() - began)
