"""The asyncio tasks that an object starts, and waits for when it is closed. Nothing else in this layer starts one."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_log: Final = logging.getLogger("avtomatika_worker.task")


class Children:
    """Asyncio tasks of one owner, who calls `cancel` or `wait` before it is gone.

    A ``TaskGroup`` lives in one function; this is for what is begun by one call and ended by another. What fails in a
    child and is not looked at by whoever has started it is a fault of the worker's own, and logged with its traceback.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, _T], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[_T]:
        """Begin ``work`` and return its task. Called on the event loop."""
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def start_alone(
        self, work: Coroutine[Any, Any, None], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[None]:
        """Begin ``work`` that only `wait` and `cancel` wait for, and return its task."""
        task = self.start(work, name=name, context=context)
        task.add_done_callback(_log_failure)
        return task

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until all have ended, for at most ``timeout`` seconds; return whether they have."""
        tasks = self._others()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        return all(each.done() for each in tasks)

    async def cancel(self, timeout: float | None = None) -> bool:
        """Cancel all and `wait`."""
        for each in self._others():
            each.cancel()
        return await self.wait(timeout)

    def _others(self) -> set[asyncio.Task[Any]]:
        """Return all but the one that asks: a child that closes its owner cannot wait for itself."""
        return self._tasks - {asyncio.current_task()}


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error(
            "%s failed, which is a fault of this worker's", task.get_name(), exc_info=error, extra={"action": "fault"}
        )
