"""Tasks that take longer than orchestrators wait for them, at published ones (RXON.md, Behaviour 12)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest

from cluster.environments import InstallationError
from cluster.processes import ProcessError
from e2e.client import Job, client_of
from e2e.fleet import Fleet, Orchestrator, RunningWorker
from e2e.releases import VARIABLE, chosen, since

RELEASES = chosen() if os.environ.get(VARIABLE) else ("1.0b21", "1.0b25", "1.0b28", "1.0b30")
"""Those that differ in what they do with a task which takes too long."""

TIMEOUT = 4
SECONDS = 11.0
BRANCH_SECONDS = 6.0


@dataclass(frozen=True)
class Place:
    """An orchestrator that waits for `TIMEOUT` seconds, a worker of several slots and one of a single slot."""

    orchestrator: Orchestrator
    wide: RunningWorker
    narrow: RunningWorker

    @property
    def retries_branches(self) -> bool:
        """Whether branches that take too long are handed out again: earlier, their job fails then."""
        return since(self.orchestrator.version, "1.0b25")


def _start(fleet: Fleet, release: str) -> Place:
    waits = {"WORKER_TIMEOUT_SECONDS": TIMEOUT, "WATCHER_INTERVAL_SECONDS": 1, "WORKER_POLL_TIMEOUT_SECONDS": 1}
    orchestrator = fleet.start_orchestrator(release, **waits)
    wide = fleet.start_worker(orchestrator, "wide", app="long_app", MAX_CONCURRENT_TASKS="6")
    narrow = fleet.start_worker(orchestrator, "narrow", app="long_app", MAX_CONCURRENT_TASKS="1")
    return Place(orchestrator, wide, narrow)


def _runs(worker: RunningWorker, job: Job) -> list[str]:
    return (worker.marks / f"{job.id}.runs").read_text().splitlines()


async def _check(place: Place) -> None:
    async with client_of(place.orchestrator.url) as client:

        async def check_long(worker: RunningWorker) -> None:
            job = await client.run(worker.skill("render"), {"seconds": SECONDS}, timeout=4 * TIMEOUT + 10)
            assert (job.status, job.data) == ("finished", {"run": 1})
            assert job.retries > 0  # it did take too long
            assert len(_runs(worker, job)) == 1

        async def check_failing() -> None:
            job = await client.run(place.wide.skill("flaky"))
            assert (job.status, job.data) == ("finished", {"run": 2})
            assert len(_runs(place.wide, job)) == 2

        async def check_branches() -> None:
            seconds = BRANCH_SECONDS if place.retries_branches else 1.0
            skill, params = place.wide.skill("render"), {"branches": [{"seconds": seconds}] * 2}
            job_id = await client.submit(skill, params, blueprint="parallel")
            if since(place.orchestrator.version, "1.0b22"):
                job = await client.wait(job_id, timeout=4 * TIMEOUT)
                assert job.status == "finished"
                assert sorted(branch["run"] for branch in job.data["branches"]) == [1, 2]
            else:  # such a job cannot finish there
                await client.wait_until(job_id, lambda job: job.retries > 0, timeout=4 * TIMEOUT)
                job = await client.job(job_id)
            assert len(set(_runs(place.wide, job))) == len(_runs(place.wide, job)) == 2

        await asyncio.gather(check_long(place.wide), check_long(place.narrow), check_failing(), check_branches())


async def test_each_runs_once_a_failed_attempt_again_and_equal_branches_side_by_side(fleet: Fleet) -> None:
    try:
        places = await asyncio.gather(*(asyncio.to_thread(_start, fleet, release) for release in RELEASES))
    except (InstallationError, ProcessError) as error:
        pytest.fail(str(error), pytrace=False)
    failures: dict[str, BaseException] = {}
    for place, ended in zip(places, await asyncio.gather(*map(_check, places), return_exceptions=True), strict=True):
        if isinstance(ended, BaseException):
            failures[place.orchestrator.version] = ended
    assert failures == {}
