"""A cancellation that comes before its tasks."""

import asyncio

import pytest

from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.transport.http import HttpTransport
from services.assembled import make_supervisor


@pytest.fixture
async def engine(orchestrator, worker):
    @worker.skill
    async def forever():
        await asyncio.Event().wait()

    supervisor, engine = make_supervisor(worker, orchestrator, max_concurrent_tasks=10, shutdown_timeout=0.05)
    run = asyncio.create_task(supervisor.run())
    await orchestrator.wait_for_worker("w1")
    yield engine
    supervisor.shutdown()
    await run


def arrive(engine, job_id, task_id, link=None):
    """Let a task arrive; return whether it is cancelled at once."""
    task = Task(job_id=job_id, task_id=task_id, type="forever", timestamp=1.0)
    engine.tasks.start(link or engine.links[0], task, reserved=False)
    return engine.tasks.running.is_cancelled(task_id)


def cancel(engine, *ids):
    engine.tasks.running.cancel(engine.links[0], ids, CancelReason.REQUESTED)


async def test_of_a_job_it_stops_all_tasks_that_come(engine):
    cancel(engine, "job-1")
    assert [arrive(engine, "job-1", f"task-{n}") for n in range(3)] == [True, True, True]
    assert not arrive(engine, "job-2", "task-9")


async def test_of_a_job_it_stops_those_that_run_and_those_that_come(engine):
    assert not arrive(engine, "job-1", "task-1")
    cancel(engine, "job-1")
    assert engine.tasks.running.is_cancelled("task-1")
    assert arrive(engine, "job-1", "task-2")


async def test_of_a_task_it_stops_that_one_only(engine):
    cancel(engine, "task-1")
    assert not arrive(engine, "job-1", "task-2")
    assert arrive(engine, "job-1", "task-1")


async def test_of_one_orchestrator_it_stops_no_task_of_another(engine):
    other = Link(LinkSettings(url="http://o2.test", token="t"), "w1", HttpTransport("http://o2.test", user_agent="t"))
    cancel(engine, "job-1", "task-1")
    assert not arrive(engine, "job-1", "task-1", other)
    assert not arrive(engine, "job-1", "task-2", other)
    assert arrive(engine, "job-1", "task-1")


async def test_of_hand_outs_without_end_the_newest_are_remembered_and_the_work_is_done_once(engine):
    for number in range(1000):
        arrive(engine, "job-1", f"task-{number}")
    (running,) = engine.tasks.running
    assert running.task.task_id == "task-999"
    assert len(running.ids) <= 100
    assert engine.tasks.slots.running == 1
    assert engine.tasks.adoption.total == 999
    cancel(engine, "task-998")
    assert engine.tasks.running.is_cancelled("task-999")
