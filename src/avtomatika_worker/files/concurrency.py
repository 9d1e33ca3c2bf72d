"""Concurrent work on many items."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T")


async def side_by_side(work: Callable[[_T], Awaitable[None]], items: Iterable[_T], *, at_once: int) -> None:
    """Do ``work`` for every item, ``at_once`` at a time. The first error cancels the rest and is raised."""
    rest = iter(items)

    async def some() -> None:
        for item in rest:  # shared: each worker takes the next
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
