"""Orchestrators limit rates by default, and a refused request starts their window anew: a worker must fall silent."""

from __future__ import annotations

import pytest

from e2e.client import Webhooks, client_of
from e2e.fleet import Fleet, Orchestrator

PERIOD = 2
JOBS, LINKS = 8, 4


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
