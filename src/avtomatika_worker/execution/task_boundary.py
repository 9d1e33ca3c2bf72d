"""The boundary around a task's code: whatever it raises fails that task and nothing else."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from avtomatika_worker.execution.outcome import Failed, from_exception


class TaskBoundary:
    """A ``with`` block around a skill, a middleware, or the transfer of a task's files.

    An exception inside ends there and becomes ``failure``, including ``sys.exit()``, an awaited ``GeneratorExit`` and
    interpreter errors: none of them may end the worker or another task. Only cancellation propagates.
    """

    __slots__ = ("failure",)

    failure: Failed

    def __enter__(self) -> Self:
        return self

    def __exit__(  # stops whatever a task raises
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, asyncio.CancelledError):
            return False
        self.failure = from_exception(error)
        return True
