"""What happens to tasks when a worker is asked to stop."""

from __future__ import annotations

from e2e.client import Client
from e2e.fleet import Fleet, Orchestrator


async def test_running_tasks_finish_before_the_worker_ends(
    client: Client, fleet: Fleet, orchestrator: Orchestrator
) -> None:
    worker = fleet.start_worker(orchestrator, "leaving")
    job_ids = [await client.submit(worker.skill("slow"), {"seconds": 1.0}) for _ in range(3)]
    for job_id in job_ids:
        await client.wait_until(job_id, lambda job: job.progress is not None)
    worker.process.terminate()
    assert worker.process.wait(timeout=10.0) == 0
    # No waiting here: a worker that has ended has delivered its results.
    jobs = [await client.wait(job_id, timeout=1.0) for job_id in job_ids]
    assert [(job.status, job.data) for job in jobs] == [("finished", {"worker": worker.id})] * 3
    output = worker.process.output()
    assert "Traceback" not in output
    assert "Warning" not in output


async def test_a_task_cut_short_goes_to_another_worker(
    client: Client, fleet: Fleet, orchestrator: Orchestrator
) -> None:
    first = fleet.start_worker(orchestrator, "first", WORKER_SHUTDOWN_TIMEOUT="0.3")
    job_id = await client.submit(first.skill("slow"), {"seconds": 6.0})  # longer than the other takes to start
    await client.wait_until(job_id, lambda job: job.progress is not None)
    second = fleet.start_worker(orchestrator, "second", skills_of=first)
    first.process.terminate()
    assert first.process.wait(timeout=10.0) == 0
    job = await client.wait(job_id, timeout=30)
    assert (job.status, job.data, job.retries) == ("finished", {"worker": second.id}, 1)
    second.process.kill()
