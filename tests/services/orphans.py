"""Finds asyncio tasks of the worker that nobody waits for, on all loops of this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import avtomatika_worker
from avtomatika_worker.execution.children import Children

_SOURCE = Path(avtomatika_worker.__file__).parent

_NOT_THE_WORKER = ("devserver", "testing", "cli", "fleet")
"""What runs beside a worker in tests, not in it."""

ROOTS = {
    "Worker.main": "whoever calls it",
    "Supervisor._live": "Supervisor.run, which leaves it behind when it does not end",
    "LinkThread._serve": "the link thread",
    "dial": "Pool.connect, which awaits it, in a context of its own",
    "_connect": "the race of addresses, which waits for all that it has begun",
}
"""Coroutines whose tasks are nobody's children, and who waits for them."""


@contextlib.contextmanager
def from_here_on() -> Generator[None]:
    """Look only at what is made in the block: there are a few hundred thousand objects before."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def tasks_of_the_worker() -> list[asyncio.Task[object]]:
    """Return the tasks that run code of the worker's, on whichever loop, and have not ended."""
    return [each for each in _all_of(asyncio.Task) if not each.done() and _is_the_workers(each)]


def orphans() -> set[asyncio.Task[object]]:
    """Return the tasks of the worker that have no parent: no living group, no owner, and are none of the `ROOTS`."""
    tasks = tasks_of_the_worker()
    children: set[asyncio.Task[object]] = set()
    for group in _all_of(asyncio.TaskGroup):
        parent = group._parent_task  # noqa: SLF001 - there is no other way to ask
        if parent is not None and not parent.done():
            children |= group._tasks.copy()  # noqa: SLF001
    for owner in _all_of(Children):
        children |= owner._tasks.copy()  # noqa: SLF001
    return {each for each in tasks if each not in children and _name(each) not in ROOTS and not each.done()}


def _all_of(kind: type[Any]) -> list[Any]:
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]


def _is_the_workers(task: asyncio.Task[object]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    if code is None or not Path(code.co_filename).is_relative_to(_SOURCE):
        return False
    return Path(code.co_filename).relative_to(_SOURCE).parts[0] not in _NOT_THE_WORKER


def _name(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")
