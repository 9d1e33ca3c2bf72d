"""Every asyncio task of this layer has an owner who waits for it."""

import ast
import asyncio
import logging
from pathlib import Path

import pytest

from avtomatika_worker import execution
from avtomatika_worker.execution.children import Children

STARTERS = {"create_task", "ensure_future"}
OWNERS = {"children.py", "containment.py"}
"""Who may start one on a bare loop: the owner of tasks, and what runs one to its end."""


def started_in(path: Path) -> list[str]:
    """Return what begins an asyncio task, but in a group: ``group`` is what a `TaskGroup` is called here."""
    calls = [each.func for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)]
    found = [each for each in calls if isinstance(each, ast.Attribute) and each.attr in STARTERS]
    return [ast.unparse(each) for each in found if ast.unparse(each.value) != "group"]


def test_only_an_owner_starts_asyncio_tasks():
    (root,) = execution.__path__
    found = {str(each): started_in(each) for each in Path(root).rglob("*.py") if each.name not in OWNERS}
    assert len(found) > 20
    assert {path: starts for path, starts in found.items() if starts} == {}


async def test_an_owner_waits_for_what_it_has_started_and_cancels_it():
    children, ended = Children(), list[str]()

    async def child(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(name)

    children.start_alone(child("short", 0), name="short")
    assert await children.wait()
    assert (ended, len(children)) == (["short"], 0)
    children.start_alone(child("long", 60), name="long")
    await asyncio.sleep(0)
    assert not await children.wait(0)
    assert await children.cancel()
    assert (ended, len(children)) == (["short", "long"], 0)


async def test_a_child_that_closes_its_owner_does_not_wait_for_itself():
    children = Children()

    async def last() -> None:
        await children.cancel()

    children.start_alone(last(), name="last")
    async with asyncio.timeout(5):
        assert await children.wait()


async def test_an_error_in_an_unobserved_child_is_logged(caplog: pytest.LogCaptureFixture):
    children = Children()

    async def broken() -> None:
        raise LookupError("gone")

    children.start_alone(broken(), name="the broken one")
    await children.wait()
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)
    assert "the broken one failed" in record.getMessage()
