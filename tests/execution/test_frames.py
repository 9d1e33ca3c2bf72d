"""A task that failed leaves nothing of its skill's frames in memory, and does not wait for the cyclic collector."""

import asyncio
import gc
import logging
import weakref

import pytest

from avtomatika_worker import SkillBlueprint, TaskContext, TaskFiles, Worker
from avtomatika_worker.execution.frames import release_frames
from avtomatika_worker.testing import WorkerHarness


class Load:
    """Stands for a large array in a local variable of a skill."""


loads: list["weakref.ref[Load]"] = []


def load() -> Load:
    made = Load()
    loads.append(weakref.ref(made))
    return made


@pytest.fixture(autouse=True)
def _without_collector(caplog):
    """No collection during the test, and no handler that keeps log records with their tracebacks."""
    logging.disable(logging.CRITICAL)
    loads.clear()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


failing = SkillBlueprint("failing")


@failing.skill
def raises():
    kept = load()
    raise RuntimeError(f"{kept}")


@failing.skill
async def raises_async():
    kept = load()
    raise RuntimeError(f"{kept}")


@failing.skill
def exits():
    kept = load()
    raise SystemExit(f"{kept}")


@failing.skill
def cycle():
    kept = load()
    error = RuntimeError(f"{kept}")
    raise error


@failing.skill
async def cycle_async():
    kept = load()
    error = RuntimeError(f"{kept}")
    raise error


def inner():
    kept = load()
    error = ValueError(f"{kept}")
    raise error


@failing.skill
def chained():
    kept = load()
    try:
        inner()
    except ValueError as error:
        cause = RuntimeError(f"{kept}")
        raise cause from error


@failing.skill
async def grouped():
    async def one():
        kept = load()
        error = ValueError(f"{kept}")
        await asyncio.sleep(0)
        raise error

    kept = load()
    async with asyncio.TaskGroup() as group:
        group.create_task(one())
        group.create_task(one())
    del kept


@failing.skill
def unsendable():
    kept = load()
    return {"value": kept}


@failing.skill(timeout=0.05)
async def slow():
    kept = load()
    await asyncio.sleep(30)
    del kept


@failing.skill(timeout=0.05)
def slow_in_a_thread(ctx: TaskContext):
    kept = load()
    while not ctx.cancelled:
        pass
    ctx.raise_if_cancelled()
    del kept


@failing.skill(timeout=0.05)
async def slow_and_failing():
    kept = load()
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError as error:
        problem = RuntimeError(f"{kept}")
        raise problem from error


@failing.skill
async def cancels_itself():
    kept = load()
    raise asyncio.CancelledError(f"{kept}")


@failing.skill
async def leads_out(files: TaskFiles):
    kept = load()
    await files.write("../out", f"{kept}")


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")
    worker.include_blueprint(failing)
    return worker


SKILLS = (
    "raises",
    "raises_async",
    "exits",
    "cycle",
    "cycle_async",
    "chained",
    "grouped",
    "unsendable",
    "slow",
    "slow_in_a_thread",
    "slow_and_failing",
    "cancels_itself",
    "leads_out",
)


@pytest.mark.parametrize("skill", SKILLS)
async def test_a_failed_task_keeps_nothing_of_its_frames(worker, skill):
    async with WorkerHarness(worker) as h:
        result = await h.run(skill)
        assert not result.ok
        assert loads
        # The result is on its way a moment before the task's last step.
        await h.orchestrator.wait_for(lambda: not any(ref() for ref in loads), timeout=5)


async def test_a_cancelled_task_keeps_nothing_of_its_frames(worker):
    @worker.skill
    async def waits(ctx: TaskContext):
        kept = load()
        ctx.send_progress(0.5)
        await asyncio.sleep(30)
        del kept

    async with WorkerHarness(worker) as h:
        task = h.submit("waits")
        await task.wait_for_progress(0.5)
        task.cancel()
        await task.result()
        await h.orchestrator.wait_for(lambda: not any(ref() for ref in loads), timeout=5)


async def test_a_coroutine_that_caught_the_error_and_goes_on_is_not_ended_by_it():
    failures: asyncio.Queue[Exception] = asyncio.Queue()

    async def serve():
        for _ in range(2):
            try:
                raise ValueError("for those who wait")
            except ValueError as error:
                await failures.put(error)
            await asyncio.sleep(0)
        return "went on"

    serving = asyncio.create_task(serve())
    release_frames(await failures.get())
    assert await serving == "went on"


def test_an_exception_that_refuses_attributes_is_released_too():
    class Stubborn(Exception):  # noqa: N818 - what a frozen dataclass is like
        def __setattr__(self, name, value):
            raise AttributeError(name)

    def fail():
        kept = load()
        raise Stubborn(str(kept))

    with pytest.raises(Stubborn) as caught:
        fail()
    release_frames(caught.value)
    assert caught.value.__traceback__ is None
    assert loads[0]() is None


def test_exceptions_that_are_chained_in_a_circle_are_released():
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__context__ = second, first
    release_frames(first)
    assert first.__cause__ is second
