"""Asyncio tasks that are used again: to make one, and to let go of it, takes as long as a poll does otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_Work = Coroutine[Any, Any, None]


class ReusedTasks:
    """Asyncio tasks of ``group``, of which each runs one coroutine after the other.

    There are as many as have been needed side by side; they end with the group. What one coroutine sets in its context
    the next one finds there. A coroutine that raises ends its task, and fails the group.
    """

    def __init__(self, group: asyncio.TaskGroup, name: str) -> None:
        self._group = group
        self._name = name
        self._idle: list[asyncio.Future[_Work]] = []

    def run(self, work: _Work) -> None:
        """Begin ``work`` in the next turn of the loop, in a task that is free, or in a new one."""
        if self._idle:
            self._idle.pop().set_result(work)
        else:
            self._group.create_task(self._run(work), name=self._name)

    async def _run(self, work: _Work) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await work
            idle: asyncio.Future[_Work] = loop.create_future()
            self._idle.append(idle)
            try:
                work = await idle
            except asyncio.CancelledError:
                if not idle.cancelled():  # in the very turn in which it was given work
                    idle.result().close()
                elif idle in self._idle:
                    self._idle.remove(idle)
                raise
