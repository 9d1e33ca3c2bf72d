"""Asyncio tasks that run one coroutine after the other."""

import asyncio

import pytest

from avtomatika_worker.tasks.reused import ReusedTasks


async def test_no_more_tasks_are_made_than_run_side_by_side():
    used, ended = set(), asyncio.Queue()

    async def work() -> None:
        used.add(asyncio.current_task())
        await asyncio.sleep(0)
        ended.put_nowait(None)

    async with asyncio.TaskGroup() as group:
        reused = ReusedTasks(group, "work")
        for _ in range(100):
            reused.run(work())
            reused.run(work())
            await ended.get()
            await ended.get()
        for each in used:
            each.cancel()
    assert len(used) == 2


async def test_what_is_given_to_a_task_in_the_turn_in_which_it_is_cancelled_is_not_begun():
    begun = asyncio.Queue()

    async def work() -> None:
        begun.put_nowait(asyncio.current_task())

    late = work()
    async with asyncio.TaskGroup() as group:
        reused = ReusedTasks(group, "work")
        reused.run(work())
        task = await begun.get()
        reused.run(late)
        task.cancel()
    assert begun.empty()
    assert late.cr_frame is None  # closed: Python warns of those that nobody has awaited


async def test_an_error_of_the_work_fails_the_group():
    async def work() -> None:
        raise ValueError("a fault")

    async def group_of_it() -> None:
        async with asyncio.TaskGroup() as group:
            ReusedTasks(group, "work").run(work())

    with pytest.raises(ExceptionGroup) as caught:
        await group_of_it()
    assert isinstance(caught.value.exceptions[0], ValueError)
