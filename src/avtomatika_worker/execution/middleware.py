"""One shape for everything that goes around a skill: ``async (ctx, call_next) -> outcome``."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.frames import release_frames
from avtomatika_worker.execution.outcome import Failed, Outcome, from_exception

_log: Final = logging.getLogger("avtomatika_worker.task")

Handler = Callable[[TaskContext], Awaitable[Outcome]]
"""What a middleware calls to go on: ``outcome = await call_next(ctx)``."""

Middleware = Callable[[TaskContext, Handler], Awaitable[Outcome]]
"""Runs around every task: before ``call_next`` the skill has not started, after it the outcome is known.

Failures are outcomes, not exceptions; a cancelled task passes through as ``CancelledError``.
"""


def compose(middlewares: Sequence[Middleware], innermost: Handler) -> Handler:
    """Return one handler that calls the middlewares in order, the first outermost, and ``innermost`` at the end."""
    handler = innermost
    for middleware in reversed(middlewares):
        handler = _wrap(middleware, handler)
    return handler


def _wrap(middleware: Middleware, call_next: Handler) -> Handler:
    return lambda ctx: middleware(ctx, call_next)


def failed(error: BaseException, ctx: TaskContext) -> Failed:
    """Log what user code raised, with its traceback, which never leaves the worker; then let go of its frames."""
    outcome = from_exception(error)
    _log.warning(
        "task %s of skill %s failed: %s: %s",
        ctx.task_id,
        ctx.skill,
        outcome.code,
        outcome.message,
        exc_info=error if not outcome.expected else None,
        extra={"action": "task_failed"},
    )
    release_frames(error)
    return outcome
