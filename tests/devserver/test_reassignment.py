"""Tasks that take longer than the orchestrator waits (RXON.md, Behaviour 12)."""

from __future__ import annotations

import asyncio

import pytest

from avtomatika_worker.devserver import PRODUCTION_LIKE
from devserver.support import Start


@pytest.mark.parametrize("version", ["1.0b7", "1.0b17"])
async def test_a_task_is_handed_out_again_while_it_runs_and_in_the_end_quarantined(start: Start, version: str) -> None:
    orchestrator, worker = await start(PRODUCTION_LIKE, version=version, clock=lambda: 1e9, lease=10_000)
    job = orchestrator.submit("echo")
    tasks = []
    for attempt in range(4):
        orchestrator.clock_offset = attempt * 300
        tasks.append(await worker.task())
        await worker.heartbeat(current_tasks=(job.job_id,))
        orchestrator.clock_offset = attempt * 300 + 299
        assert job.state == "running"
    orchestrator.clock_offset = 1200
    assert (job.state, job.attempts) == ("quarantined", 4)
    assert job.error is not None
    assert job.error["code"] == "TIMEOUT_ERROR"
    assert len({task["task_id"] for task in tasks}) == (1 if version == "1.0b7" else 4)
    reasons = [(await worker.result(task)).json["reason"] for task in tasks]
    late = "job_already_terminated"
    assert reasons == ([late] * 4 if version == "1.0b7" else ["stale_task"] * 3 + [late])


@pytest.mark.parametrize(("version", "status"), [("1.0b7", "accepted"), ("1.0b17", "ignored")])
async def test_a_result_after_the_timeout_counts_only_where_the_task_keeps_its_id(
    start: Start, version: str, status: str
) -> None:
    orchestrator, worker = await start(PRODUCTION_LIKE, version=version, clock=lambda: 1e9, lease=1000)
    job = orchestrator.submit("echo")
    task = await worker.task()
    orchestrator.clock_offset = 300
    assert job.state == "queued"
    assert (await worker.result(task)).json["status"] == status
    assert job.state == ("finished" if status == "accepted" else "queued")


async def test_a_poll_that_waits_gets_one_of_the_tasks_that_are_due_in_one_moment(start: Start) -> None:
    orchestrator, worker = await start(PRODUCTION_LIKE, clock=lambda: 1e9, lease=10_000, poll_time=20.0)
    jobs = [orchestrator.submit("echo") for _ in range(3)]
    before = {(await worker.task())["task_id"] for _ in jobs}
    async with asyncio.TaskGroup() as group:
        polls = [group.create_task(worker.task()) for _ in range(2)]
        await orchestrator.wait_for(lambda: orchestrator.workers[worker.worker_id].polls == len(polls))
        orchestrator.clock_offset = 300
    assert sorted(job.state for job in jobs) == ["queued", "running", "running"]
    assert before.isdisjoint({poll.result()["task_id"] for poll in polls})
    assert {poll.result()["task_id"] for poll in polls} <= {job.task_id for job in jobs}


async def test_a_short_timeout_is_exact(start: Start) -> None:
    orchestrator, worker = await start(PRODUCTION_LIKE, task_timeout=0.05, max_attempts=1)
    job = orchestrator.submit("echo")
    await worker.task()
    await job.done(5)
    assert job.state == "quarantined"
    assert job.finished_at is not None
    assert job.handed_out_at is not None
    assert 0.05 <= job.finished_at - job.handed_out_at < 0.5


async def test_a_result_in_time_ends_the_job(start: Start) -> None:
    orchestrator, worker = await start(PRODUCTION_LIKE, clock=lambda: 1e9, lease=1000)
    job = orchestrator.submit("echo")
    await worker.result(await worker.task())
    orchestrator.clock_offset = 300
    assert (job.state, job.attempts) == ("finished", 1)
