"""Reuses asyncio tasks: creating and discarding one costs as much as the rest of a poll."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

_Work = Coroutine[Any, Any, None]


class ReusedTasks:
    """Asyncio tasks in ``group``, each of which runs one coroutine after another.

    There are as many as were ever needed at once; they end with the group. Context variables that one coroutine sets
    are visible to the next. A coroutine that raises ends its task and fails the group.
    """

    def __init__(self, group: asyncio.TaskGroup, name: str) -> None:
        self._group = group
        self._name = name
        self._idle: list[asyncio.Future[_Work]] = []

    def run(self, work: _Work) -> None:
        """Start ``work`` in the next loop iteration, in an idle task or a new one."""
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
                if not idle.cancelled():  # cancelled in the same iteration in which it was given work
                    idle.result().close()
                elif idle in self._idle:
                    self._idle.remove(idle)
                raise
