"""The asyncio tasks that an object starts and waits for when it is closed. Nothing else in this layer starts tasks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_log: Final = logging.getLogger("avtomatika_worker.task")


class Children:
    """The asyncio tasks of one owner, which calls `cancel` or `wait` before it goes away.

    A ``TaskGroup`` lives inside one function; this is for work that one call starts and another ends. A failure in a
    child that its starter does not handle is a bug in the worker, and is logged with its traceback.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, _T], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[_T]:
        """Start ``work`` and return its task. Must be called on the event loop."""
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def start_alone(
        self, work: Coroutine[Any, Any, None], *, name: str, context: contextvars.Context | None = None
    ) -> asyncio.Task[None]:
        """Start ``work`` that nothing but `wait` and `cancel` waits for, and return its task."""
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
        """Return all but the current task: a child that closes its owner cannot wait for itself."""
        return self._tasks - {asyncio.current_task()}


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s failed; this is a bug in the worker", task.get_name(), exc_info=error, extra={"action": "fault"})
