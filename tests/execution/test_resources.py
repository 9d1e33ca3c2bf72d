"""Opening and closing a process's resources: in one task, in reverse order, bounded, and nothing in silence."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from avtomatika_worker import ResourceError
from avtomatika_worker.execution.resources import Resources
from avtomatika_worker.skills.binding import Injectables
from avtomatika_worker.skills.resource import ResourceDefinition, ResourceRegistry


class One: ...


class Two: ...


class Three: ...


def resources(*functions) -> Resources:
    known = Injectables()
    registry = ResourceRegistry(known)
    for each in functions:
        registry.add(ResourceDefinition(each, {}))
    return Resources(registry.needed_for(registry.kinds), known)


def actions(caplog):
    return [(each.resource, each.action) for each in caplog.records if each.levelname == "ERROR"]


async def test_scopes_that_are_held_open_are_left_in_the_task_that_entered_them(caplog):
    tasks, closed = [], []

    async def one() -> AsyncIterator[One]:
        tasks.append(asyncio.current_task())
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 60)
            yield One()
            group.cancel_scope.cancel()
        tasks.append(asyncio.current_task())
        closed.append("one")

    async def two(one: One) -> AsyncIterator[Two]:
        async with asyncio.timeout(60), asyncio.TaskGroup():
            yield Two()
        closed.append("two")

    made = resources(one, two)
    await asyncio.create_task(made.open())
    await asyncio.create_task(made.close())
    assert closed == ["two", "one"]
    assert tasks[0] is tasks[1]
    assert actions(caplog) == []


async def test_one_that_ends_by_itself_is_reported_at_once_and_not_closed_again(caplog):
    crash = asyncio.Event()

    async def background() -> None:
        await crash.wait()
        raise OSError("the session is gone")

    async def one() -> AsyncIterator[One]:
        async with asyncio.TaskGroup() as group:
            group.create_task(background())
            yield One()

    made = resources(one)
    await made.open()
    crash.set()
    async with asyncio.timeout(10):
        while not actions(caplog):  # noqa: ASYNC110 - a log record wakes nobody
            await asyncio.sleep(0)
    assert actions(caplog) == [("one", "resource_ended")]
    assert made.values, "skills still get what was made"
    await made.close()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()], ids=repr)
async def test_one_that_cannot_be_opened_names_itself_and_those_before_it_are_closed(error):
    closed = []

    async def one() -> AsyncIterator[One]:
        yield One()
        closed.append("one")

    async def two() -> AsyncIterator[Two]:
        raise error
        yield Two()

    with pytest.raises(ResourceError, match="two"):
        await resources(one, two).open()
    assert closed == ["one"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()], ids=repr)
async def test_one_that_fails_to_close_keeps_no_other_open(caplog, error):
    closed = []

    async def one() -> AsyncIterator[One]:
        yield One()
        closed.append("one")

    async def two() -> AsyncIterator[Two]:
        yield Two()
        raise error

    def three() -> Iterator[Three]:
        yield Three()
        raise LookupError

    made = resources(one, two, three)
    await made.open()
    await made.close()
    assert closed == ["one"]
    assert actions(caplog) == [("three", "resource_close_failed"), ("two", "resource_close_failed")]


async def test_one_that_hangs_is_given_up_named_and_keeps_no_other_open(caplog, monkeypatch):
    monkeypatch.setattr("avtomatika_worker.execution.resources.CLOSE_TIMEOUT", 0.8)
    closed = []

    async def one() -> AsyncIterator[One]:
        yield One()
        closed.append("one")

    async def two() -> AsyncIterator[Two]:
        yield Two()
        await asyncio.Event().wait()

    made = resources(one, two)
    await made.open()
    async with asyncio.timeout(5):
        await made.close()
    assert closed == ["one"]
    assert actions(caplog) == [("two", "resource_close_failed")]
    assert "not closed within" in caplog.text
