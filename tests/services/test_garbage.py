"""What a task leaves behind: nothing that only the garbage collector could free. It stops the whole process."""

import gc
import sys
from collections import Counter

import pytest

from avtomatika_worker import TaskContext
from avtomatika_worker.devserver import EmbeddedOrchestrator
from services.conftest import running

TASKS = 20


@pytest.fixture
def collector_off(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "unraisablehook", lambda _unraisable: None)
        gc.collect()
    gc.freeze()  # what other tests have left is not looked at
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def of_tasks():
    """Count the objects that belong to a task and are still there."""
    kinds = Counter(type(each).__name__ for each in gc.get_objects())
    return {name: kinds[name] for name in ("Controls", "Execution", "TaskContext", "TaskEvents", "RunningTask")}


@pytest.mark.parametrize("skill", ["on_the_loop", "in_a_thread", "with_events"])
async def test_an_ended_task_is_freed_without_the_collector(worker, collector_off, skill):
    @worker.skill
    async def on_the_loop(params: dict, ctx: TaskContext):
        return {"task": ctx.task_id, **params}

    @worker.skill
    def in_a_thread(ctx: TaskContext):
        return {"task": ctx.task_id}

    @worker.skill
    async def with_events(ctx: TaskContext):
        await ctx.send_progress(0.5)
        return {"task": ctx.task_id}

    async with EmbeddedOrchestrator() as orchestrator, running(worker, orchestrator, max_concurrent_tasks=4):
        for job in [orchestrator.submit(skill, {}) for _ in range(TASKS)]:
            await job.done()
    assert max(of_tasks().values()) < TASKS / 2  # the last ones may still be referred to
