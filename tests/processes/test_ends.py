"""How skills in processes end: crashes, kills, and what is left then."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import psutil
import pytest

from avtomatika_worker.execution.processes.process import Process
from avtomatika_worker.execution.processes.process_spec import ProcessSpec
from avtomatika_worker.testing import WorkerHarness
from processes.conftest import gone, until

# ---------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize(
    ("how", "code", "details"),
    [
        ("exit", "TRANSIENT_ERROR", {"exit_code": 3}),
        ("exit_well", "TRANSIENT_ERROR", {"exit_code": 0}),
        ("segfault", "TRANSIENT_ERROR", {"signal": "SIGSEGV"}),
        ("kill", "RESOURCE_EXHAUSTED_ERROR", {"signal": "SIGKILL"}),
    ],
)
async def test_a_crash_is_that_tasks_failure_and_the_pool_heals(h, how, code, details):
    other = h.submit("polite", {})
    bystander = (await other.wait_for_event("started")).payload["pid"]
    result = await h.run("die", {"how": how})
    assert (result.error.code, result.error.details) == (code, details)
    after = await h.run("add_up", {"numbers": [1]})
    assert after.status == "success"
    assert not gone(bystander), "another task's process went too"
    other.cancel()
    assert (await other.result()).status == "cancelled"


async def test_a_process_that_dies_while_it_is_idle_is_replaced(h):
    first = (await h.run("add_up", {"numbers": []})).data["pid"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: gone(first))
    second = await h.run("add_up", {"numbers": []})
    if second.error is not None:  # the worker had not learnt of the death yet: an orchestrator would try again
        assert second.error.code == "RESOURCE_EXHAUSTED_ERROR"
        second = await h.run("add_up", {"numbers": []})
    assert second.status == "success"
    assert second.data["pid"] != first


async def test_running_out_of_memory_is_that_tasks_failure_and_ends_the_process(h):
    pid = (await h.run("add_up", {"numbers": []})).data["pid"]
    result = await h.run("eat", {})
    assert result.error.code == "RESOURCE_EXHAUSTED_ERROR"
    assert result.error.message.startswith("out of memory")
    await until(lambda: gone(pid))
    assert (await h.run("add_up", {"numbers": [7]})).data["total"] == 7


async def test_sys_exit_ends_the_task_only(h):
    pid = (await h.run("add_up", {"numbers": []})).data["pid"]
    assert (await h.run("die", {"how": "sys_exit"})).error.code == "TRANSIENT_ERROR"
    assert (await h.run("add_up", {"numbers": []})).data["pid"] == pid


async def test_a_process_is_replaced_after_as_many_tasks_as_it_may_run(h):
    pids = [(await h.run("short_lived", {})).data["pid"] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2]
    assert pids[2] == pids[3] != pids[4]
    await until(lambda: gone(pids[0]))


# ---------------------------------------------------------------------------------------------- stopping


async def test_a_skill_that_holds_the_gil_is_killed_when_cancelled(h):
    task = h.submit("spin", {})
    pid = (await task.wait_for_event("spinning")).payload["pid"]
    task.cancel()
    assert (await task.result(10)).status == "cancelled"
    assert gone(pid)
    assert (await h.run("add_up", {"numbers": [1]})).status == "success"


async def test_a_timeout_kills(h, caplog):
    result = await h.run("too_slow", {})
    assert result.error.code == "TIMEOUT_ERROR"
    (killed,) = [each for each in caplog.records if getattr(each, "action", "") == "skill_process_killed"]
    assert gone(killed.pid)


@pytest.mark.parametrize("skill", ["polite", "polite_async"])
async def test_a_skill_that_stops_when_asked_keeps_its_process(h, skill):
    task = h.submit(skill, {})
    pid = (await task.wait_for_event("started")).payload["pid"]
    task.cancel()
    assert (await task.result(4)).status == "cancelled"
    assert (await h.run("add_up", {"numbers": []})).data["pid"] == pid


async def test_what_a_killed_skill_had_started_is_killed_too(h):
    task = h.submit("with_children", {})
    pids = (await task.wait_for_event("child")).payload
    task.cancel()
    await task.result(10)
    assert gone(pids["parent"])
    await until(lambda: gone(pids["pid"]))


async def test_a_deadline_stops_the_process(h):
    result = await h.run("spin", {}, deadline_in=1.5)
    assert result.error.code == "TIMEOUT_ERROR"


async def test_the_end_of_the_worker_leaves_no_process(worker):
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 3}) as h:
        tasks = [h.submit(name, {}) for name in ("polite", "spin")]
        await asyncio.gather(
            *(each.wait_for_event(name) for each, name in zip(tasks, ("started", "spinning"), strict=True))
        )
        idle = (await h.run("add_up", {"numbers": []})).data["pid"]
        pids = [idle, *(each.payload["pid"] for task in tasks for each in task.events)]
        assert len(set(pids)) == 3
    assert all(map(gone, pids))
    assert {task.job.error["code"] for task in tasks if task.job.error} == {"TRANSIENT_ERROR"}


async def test_no_more_processes_than_the_setting_says_and_tasks_wait(worker):
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 4, "skill_processes": 1}) as h:
        first = h.submit("polite", {})
        await first.wait_for_event("started")
        waiting, given_up = h.submit("add_up", {"numbers": [5]}), h.submit("polite", {})
        await until(lambda: all(each.job.attempts for each in (waiting, given_up)))
        given_up.cancel()
        assert (await given_up.result(5)).status == "cancelled"
        assert not waiting.job.state.final
        first.cancel()
        assert (await waiting.result(5)).data["total"] == 5


class SlowSpawner(Executor):
    """Does what it is given when it is let, as a thread on a busy machine would."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append(partial(fn, *args, **kwargs))
        return Future()


async def test_a_process_that_comes_up_after_its_worker_has_ended_is_killed_and_reaped():
    spawner = SlowSpawner()

    spec = ProcessSpec(worker_id="w", skills={}, resources={}, given=b"", packages={})

    async def give_up() -> None:
        starting = asyncio.create_task(Process(lambda _: None).start(spec, spawner))
        await until(lambda: spawner.calls)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting

    await asyncio.to_thread(asyncio.run, give_up())
    before = set(psutil.Process().children())
    (spawn,) = spawner.calls
    spawn()
    await until(lambda: set(psutil.Process().children()) <= before)  # a zombie would still be one
