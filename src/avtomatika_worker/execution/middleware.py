"""One shape for everything that wraps a skill: ``async (ctx, call_next) -> outcome``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from avtomatika_worker.errors import ContractViolationError
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.envelope import OUTCOMES
from avtomatika_worker.execution.outcome import Outcome
from avtomatika_worker.execution.task_boundary import TaskBoundary
from avtomatika_worker.narrowing import as_any, is_mapping
from avtomatika_worker.skills.binding import underlying

Handler = Callable[[TaskContext], Awaitable[Outcome]]
"""What a middleware calls to continue: ``outcome = await call_next(ctx)``."""

Middleware = Callable[[TaskContext, Handler], Awaitable[Outcome]]
"""Wraps every task: before ``call_next`` the skill has not started; after it the outcome is known.

Failures are outcomes, not exceptions; a cancelled task passes through as ``CancelledError``.
"""


Reader = Callable[[TaskContext, object], Outcome]
"""Turns a middleware's return value, an outcome or a dict, into an outcome that can be sent.

Raises `ContractViolationError`.
"""

_WANTED: Final = "it must return an outcome: that of `await call_next(ctx)`, or Succeeded, Failed or Cancelled"


def compose(middlewares: Sequence[Middleware], innermost: Handler, read: Reader) -> Handler:
    """Return a handler that calls the middlewares in order, the first outermost, and finally ``innermost``."""
    handler = innermost
    for middleware in reversed(middlewares):
        handler = _wrap(middleware, handler, read)
    return handler


def _wrap(middleware: Middleware, call_next: Handler, read: Reader) -> Handler:
    """Ensure that the layer around a middleware sees an outcome, whatever the middleware returns or raises."""

    async def handler(ctx: TaskContext) -> Outcome:
        with TaskBoundary() as boundary:
            returned = as_any(await middleware(ctx, call_next))
            try:
                if isinstance(returned, OUTCOMES) or is_mapping(returned):
                    return read(ctx, returned)
                problem, details = f"{_what(returned)}: {_WANTED}", dict[str, Any]()
            except ContractViolationError as error:
                problem, details = f"an invalid result: {error.message}", error.details
            raise ContractViolationError(f"middleware {name_of(middleware)} returned {problem}", details)
        return boundary.failure

    return handler


def _what(returned: object) -> str:
    if returned is None:
        return "None (is a `return` missing?)"
    if inspect.iscoroutine(returned):
        returned.close()  # otherwise Python warns that it was never awaited
        return "a coroutine (is an `await` missing?)"
    return f"a value of type {type(returned).__name__}"


def name_of(middleware: object) -> str:
    """Return a middleware's name for messages: the module and name of its function or class."""
    named = named_part(middleware)
    return f"{named.__module__}.{named.__qualname__}"


def named_part(middleware: object) -> Any:
    """Return the part of a middleware that has a name: its function, or its class."""
    inner = underlying(as_any(middleware))
    return inner if hasattr(inner, "__qualname__") else type(inner)
