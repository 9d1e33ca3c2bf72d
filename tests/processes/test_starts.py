"""Processes that do not start, cancellations at any moment, and what is left of the asyncio tasks behind them."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from avtomatika_worker.errors import ProcessStartError, TaskError
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.execution.processes import guard
from avtomatika_worker.execution.processes.process import Process
from avtomatika_worker.execution.processes.process_pool import Processes
from avtomatika_worker.execution.processes.process_room import ProcessRoom
from avtomatika_worker.execution.processes.process_spec import ProcessSpec, make_process_spec
from avtomatika_worker.execution.processes.wire import HEAD, MARK, decode, encode, read_head
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.testing import WorkerHarness
from processes.conftest import until


class Nowhere:
    """Takes what a task says."""

    def progress(self, progress: float, message: str) -> None: ...

    def event(self, event_type: str, payload: dict[str, Any], facts: Any) -> None: ...

    def room(self) -> Any:
        yield from ()

    def add(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...


def controls(skill: str, **params: Any) -> Controls:
    nowhere = Nowhere()
    task = Task(job_id="j", task_id="t", type=skill, params=params)
    return Controls(task, "w", sink=nowhere, check_event=lambda _s, _t, _p, _f: ({}, None), hot=nowhere)


def spec_of(worker: Any, *names: str) -> ProcessSpec:
    return make_process_spec("w", map(worker.skills.definition, names), [], {}, {})


OPEN = Path("/proc/self/fd")


def descriptors() -> int:
    return len([*OPEN.iterdir()]) if OPEN.exists() else 0


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@asynccontextmanager
async def pool_of(worker: Any, *names: str, size: int = 1):
    pool = Processes({0: spec_of(worker, *names)}, ProcessRoom(size), prestart=False)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()
    assert not others(), "an asyncio task has nobody who waits for it"


@contextmanager
def free_descriptors(number: int):
    """Let this process open so many more, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [int(each.name) for each in OPEN.iterdir()]  # what looks at them is among them
    fill = [os.open(os.devnull, os.O_RDONLY) for _ in range(max(taken) + 1 - len(taken) + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(*taken, *fill) + 1 + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in fill:
            os.close(each)


@pytest.mark.skipif(not OPEN.exists(), reason="counts descriptors in /proc")
async def test_however_few_descriptors_are_left_a_start_that_fails_fails_its_task_and_leaks_nothing(worker):
    skill = worker.skills.get("add_up")
    outcomes = []
    async with pool_of(worker, "add_up") as pool:
        before, children = descriptors(), set(psutil.Process().children())
        for free in range(8):
            with free_descriptors(free):
                run = asyncio.wait_for(pool.run(skill, controls("add_up", numbers=[1])), 20)
                (outcome,) = await asyncio.gather(run, return_exceptions=True)
            if not isinstance(outcome, TaskError):
                break
            outcomes.append(outcome.code)
            assert "skill process cannot be started" in str(outcome)
            await until(lambda: set(psutil.Process().children()) <= children)
            assert (descriptors(), others()) == (before, set())
        outcome = await pool.run(skill, controls("add_up", numbers=[1, 2]))
        assert outcome.data["total"] == 3
    assert outcomes[:2] == ["RESOURCE_EXHAUSTED_ERROR"] * 2


class Refusing(Executor):
    """Has no thread to give, as one that was shut down."""

    def submit(self, fn, /, *args, **kwargs):
        raise RuntimeError("cannot schedule new futures after shutdown")


class Broken(ProcessSpec):
    """Cannot be written for the process."""

    def message(self) -> dict[str, Any]:
        raise PermissionError(13, "Permission denied", "/somewhere")


@pytest.mark.parametrize(
    ("spec", "spawner"),
    [(ProcessSpec, Refusing), (Broken, ThreadPoolExecutor)],
    ids=["no thread", "no message"],
)
async def test_a_start_that_fails_at_any_step_leaves_nothing_behind(spec, spawner):
    before, children = descriptors(), set(psutil.Process().children())
    with spawner() as pool, pytest.raises(ProcessStartError, match="cannot be started"):
        await Process(lambda _: None).start(spec(worker_id="w", skills={}, resources={}, given=b"", packages={}), pool)
    await until(lambda: set(psutil.Process().children()) <= children)
    await until(lambda: descriptors() == before)
    await until(lambda: not others())


async def test_each_task_that_waits_for_a_process_that_cannot_start_fails_by_itself(worker, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    skill = worker.skills.get("add_up")
    async with pool_of(worker, "add_up") as pool, asyncio.timeout(20):
        runs = [pool.run(skill, controls("add_up", numbers=[])) for _ in range(3)]
        failures = await asyncio.gather(*runs, return_exceptions=True)
        assert [type(each).__name__ for each in failures] == ["InternalError"] * 3
        monkeypatch.undo()
        assert (await pool.run(skill, controls("add_up", numbers=[4]))).data["total"] == 4


# ---------------------------------------------------------------------------------------------- cancellations


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30, 100])
async def test_a_cancellation_at_any_moment_ends_the_task_and_leaves_the_pool_usable(worker, turns):
    skill, other = worker.skills.get("polite_async"), worker.skills.get("add_up")
    async with pool_of(worker, "polite_async", "add_up") as pool, asyncio.timeout(60):
        task = controls("polite_async")
        running = asyncio.create_task(pool.run(skill, task))
        for _ in range(turns):
            await asyncio.sleep(0.001 if turns > 10 else 0)
        task.cancelling.ask(CancelReason.REQUESTED)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await pool.run(other, controls("add_up", numbers=[1]))).data["total"] == 1


@contextmanager
def process_for(worker: Any, skill: str) -> Iterator[tuple[Any, Any, Any]]:
    """Start a process by hand; yield it, what says something to it, and what waits for what it says."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    with ours, theirs, ours.makefile("rb") as stream:
        program = [sys.executable, "-P", guard.__file__, str(theirs.fileno()), str(os.getpid()), "\n".join(sys.path)]
        with subprocess.Popen(program, pass_fds=[theirs.fileno()], process_group=0) as process:
            theirs.close()

            def heard(*verbs: str) -> list[Any]:
                while True:
                    _, size = read_head(stream.read(HEAD.size))
                    message = decode(stream.read(size))
                    if message[0] in verbs:
                        return message
                    if message[0] == "call":  # the task was taken up first: its event needs its answer
                        ours.sendall(encode("answer", message[2], True, None))

            ours.sendall(encode("setup", spec_of(worker, skill).message()))
            heard("ready")
            yield process, ours.sendall, heard


@pytest.mark.parametrize("skill", ["polite", "polite_async"])
def test_a_cancellation_that_comes_before_the_task_is_taken_up_is_not_lost(worker, skill):
    """Both messages are in the socket before the process reads from it, which may happen."""
    with process_for(worker, skill) as (process, say, heard):
        for number in range(1, 6):
            facts = {"task": {"job_id": "j", "task_id": "t", "type": skill}, "costs": {}, "preempted": False}
            say(encode("task", number, [facts]) + encode("cancel", number, "requested"))
            assert heard("cancelled", "done") == ["cancelled", number]
        say(encode("cancel", 3, "requested"))  # of one that has ended: it means no other
        say(encode("end"))
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    "message",
    [encode("task", 1, [{}]), encode("answer"), HEAD.pack(MARK, 1, 1) + b"\xc1"],
    ids=["a task without facts", "an answer to nothing", "no message"],
)
def test_a_process_that_cannot_handle_a_message_ends_and_says_why(worker, message):
    with process_for(worker, "add_up") as (process, say, heard):
        say(message)
        record = heard("log")[1]
        assert record["action"] == "skill_process_fault"
        process.wait(20)


async def test_no_asyncio_task_outlives_a_worker_whose_processes_crashed_and_were_cancelled(worker):
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 3}) as h:
        polite = h.submit("polite", {})
        await polite.wait_for_event("started")
        assert (await h.run("die", {"how": "exit"})).status == "failure"
        spinning = h.submit("spin", {})
        await spinning.wait_for_event("spinning")
    assert not others()
