"""Outages: the network is cut in the middle of a stream of jobs, and the orchestrator restarts without memory."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from e2e.client import client_of
from e2e.fleet import Fleet, Orchestrator, RunningWorker
from e2e.proxy import proxy_to
from e2e.side_by_side import for_each_release

OUTAGE = 20.0
POLLS_HELD = 4.0
BEFORE, AFTER = 4.0, 6.0
EVERY = 0.2
SOON = {"REGISTRATION_RETRY_MAX_DELAY": "5"}
"""The longest pause between two tries to come back, instead of a minute, which would be the test's."""


async def test_an_outage_of_twenty_seconds_loses_no_job_and_runs_none_twice_unasked(fleet: Fleet) -> None:
    async def check(version: str) -> None:
        orchestrator = await asyncio.to_thread(fleet.start_orchestrator, version)
        async with proxy_to(orchestrator.url) as proxy, client_of(orchestrator.url) as client:
            worker = await started(fleet, orchestrator, "outage", ORCHESTRATOR_URL=proxy.url, **SOON)
            job_ids: list[str] = []

            async def submit(seconds: float) -> None:
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    # Some are under way when the network is cut, and end without it.
                    job_ids.append(await client.submit(worker.skill("note"), {"seconds": len(job_ids) % 4 * 0.8}))
                    await asyncio.sleep(EVERY)

            await submit(BEFORE)
            await proxy.cut()
            # The orchestrator still holds polls whose client is gone, and would give them what comes now (RXON.md,
            # Behaviour 2): nothing that a worker can help.
            await asyncio.sleep(POLLS_HELD)
            await submit(OUTAGE - POLLS_HELD)
            await proxy.restore()
            await submit(AFTER)
            jobs = await client.wait_all(job_ids, timeout=60)
        begun = Counter((worker.marks / "begun").read_text().split())
        assert Counter((job.status, job.error) for job in jobs) == {("finished", ""): len(job_ids)}
        assert all(job.data == {"job": job.id} for job in jobs)
        assert all(1 <= begun[job.id] <= 1 + job.retries for job in jobs)
        await ended(worker, orchestrator)

    await for_each_release(check)


async def test_a_restarted_orchestrator_without_memory_has_its_worker_back_within_seconds(fleet: Fleet) -> None:
    async def check(version: str) -> None:
        first = await asyncio.to_thread(fleet.start_orchestrator, version)
        worker = await started(fleet, first, "restart", **SOON)
        async with client_of(first.url) as client:
            assert (await client.run(worker.skill("note"))).status == "finished"
        await asyncio.to_thread(first.process.kill)
        second = await asyncio.to_thread(fleet.start_orchestrator, version, port=first.port)
        up = time.monotonic()
        async with client_of(second.url) as client:
            # What is submitted before the worker is back would be quarantined. A record can be without a status for a
            # moment (observed on 1.0b30).
            while (await client.worker(worker.id) or {}).get("status") != "idle":
                await asyncio.sleep(0.05)
                assert time.monotonic() - up < 10.0
            assert (await client.run(worker.skill("note"))).status == "finished"
        assert time.monotonic() - up < 10.0
        await ended(worker, second)

    await for_each_release(check)


async def started(fleet: Fleet, orchestrator: Orchestrator, name: str, **settings: str) -> RunningWorker:
    """Start a worker that counts."""
    return await asyncio.to_thread(fleet.start_worker, orchestrator, name, app="counting_app", **settings)


async def ended(worker: RunningWorker, orchestrator: Orchestrator) -> None:
    """Stop the worker as an operator does; it has nothing left to deliver."""
    worker.process.terminate()
    assert await asyncio.to_thread(worker.process.wait, 15.0) == 0
    output = worker.process.output()
    assert "outbox_left" not in output
    assert "Traceback" not in output
    assert "Warning" not in output
    await asyncio.to_thread(orchestrator.process.kill)
