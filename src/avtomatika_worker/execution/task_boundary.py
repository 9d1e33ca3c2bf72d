"""The boundary around the code of a task: whatever it raises is that task's failure, and nobody else's."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from avtomatika_worker.execution.outcome import Failed, from_exception


class TaskBoundary:
    """A ``with`` block around a skill, a middleware, or what moves the files of a task.

    What is raised inside ends there, as ``failure``: ``sys.exit()``, a ``GeneratorExit`` that is awaited and errors of
    the interpreter's too, since none of them may end the worker or another task. Only a cancellation goes on.
    """

    __slots__ = ("failure",)

    failure: Failed

    def __enter__(self) -> Self:
        return self

    def __exit__(  # ends whatever a task raises
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, asyncio.CancelledError):
            return False
        self.failure = from_exception(error)
        return True
