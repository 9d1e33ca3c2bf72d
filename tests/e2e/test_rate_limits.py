"""Orchestrators limit rates by default, and a refused request restarts their window: a worker must fall silent."""

from __future__ import annotations

import asyncio

import pytest

from e2e.client import Webhooks, client_of, listening_webhooks
from e2e.fleet import Fleet, Orchestrator
from e2e.side_by_side import for_each_release

PERIOD = 2
JOBS, LINKS = 5, 4


@pytest.mark.parametrize("limited", ["RATE_LIMIT_LIMIT", "RATE_LIMIT_POLL_LIMIT"])
async def test_all_results_arrive_although_calls_are_refused(
    fleet: Fleet, orchestrator: Orchestrator, webhooks: Webhooks, limited: str
) -> None:
    limits = {"RATE_LIMIT_LIMIT": 1000, "RATE_LIMIT_POLL_LIMIT": 1000, "RATE_LIMIT_HEARTBEAT_LIMIT": 1000, limited: 9}
    strict = fleet.start_orchestrator(
        orchestrator.version, RATE_LIMITING_ENABLED=True, RATE_LIMIT_PERIOD=PERIOD, **limits
    )
    worker = fleet.start_worker(strict, "limited", RATE_LIMIT_WAIT=str(PERIOD + 1))
    async with client_of(strict.url) as client:
        # Few calls of the client: it is limited as well. Each job is a chain of tasks, and so of results.
        job_ids = [
            await client.submit(worker.skill("crowd"), {"links": LINKS}, blueprint="chain", webhook_url=webhooks.url)
            for _ in range(JOBS)
        ]
        ends = [await webhooks.until_ended(job_id, timeout=60.0) for job_id in job_ids]
    assert ends == ["job_finished"] * JOBS
    worker.process.kill()
    strict.process.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_hundred_and_fifty_tasks_are_done_within_the_limits_of_a_default_orchestrator(fleet: Fleet) -> None:
    """60 polls and 100 results a minute, as released orchestrators allow by default."""

    async def check(version: str) -> None:
        strict = await asyncio.to_thread(fleet.start_orchestrator, version, RATE_LIMITING_ENABLED=True)
        worker = await asyncio.to_thread(fleet.start_worker, strict, "default-limits")
        async with client_of(strict.url) as client, listening_webhooks() as webhooks:
            job_ids = [
                await client.submit(worker.skill("crowd"), {"links": 5}, blueprint="chain", webhook_url=webhooks.url)
                for _ in range(30)
            ]
            ends = [await webhooks.until_ended(job_id, timeout=800.0) for job_id in job_ids]
        assert ends == ["job_finished"] * 30
        worker.process.kill()
        strict.process.kill()

    await for_each_release(check)
