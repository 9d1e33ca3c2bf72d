"""Cancellation reaches a running skill, by either of the two ways an orchestrator has."""

from __future__ import annotations

import time

from e2e.client import Client
from e2e.fleet import Fleet, Orchestrator, RunningWorker


async def test_over_the_websocket_it_is_immediate(client: Client, worker: RunningWorker) -> None:
    record = await client.worker(worker.id)
    assert record is not None
    assert record["capabilities"]["websockets"] is True
    took = await _cancel(client, worker)
    assert took < 2.0


async def test_without_a_websocket_it_comes_with_a_heartbeat(
    client: Client, fleet: Fleet, orchestrator: Orchestrator
) -> None:
    worker = fleet.start_worker(orchestrator, "silent", WORKER_ENABLE_WEBSOCKETS="false", HEARTBEAT_INTERVAL="0.4")
    record = await client.worker(worker.id)
    assert record is not None
    assert not record["capabilities"].get("websockets")
    took = await _cancel(client, worker)
    assert took < 5.0  # the older orchestrator asks for up to 2 s of jitter
    worker.process.kill()


async def test_other_tasks_run_on(client: Client, worker: RunningWorker) -> None:
    other = await client.submit(worker.skill("slow"), {"seconds": 1.0})
    await client.wait_until(other, lambda job: job.progress is not None)
    await _cancel(client, worker)
    assert (await client.wait(other)).status == "finished"


async def _cancel(client: Client, worker: RunningWorker) -> float:
    """Cancel a running task; return how long it took until the worker had answered (seconds)."""
    job_id = await client.submit(worker.skill("slow"), {"seconds": 30})
    await client.wait_until(job_id, lambda job: job.progress is not None)
    began = time.monotonic()
    await client.cancel(job_id)
    # The orchestrator calls the job cancelled at once; it moves to the blueprint's state when the worker answers.
    await client.wait_until(job_id, lambda job: job.state == "cancelled")
    took = time.monotonic() - began
    assert (worker.marks / f"{job_id}.cancelled").read_text() == "requested"
    return took
