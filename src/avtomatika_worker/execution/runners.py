"""Where a skill runs: ``async def`` on the main loop, plain ``def`` in the worker's own threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from avtomatika_worker.execution.context import TaskCancelledError, TaskContext
from avtomatika_worker.skills.skill import Skill


class Threads:
    """The worker's thread pool for plain ``def`` skills, one thread a slot, never asyncio's default one.

    A thread cannot be interrupted. When its task is cancelled the skill sees ``ctx.cancelled``, and after ``grace``
    seconds the task is given up; `Lingering` then tells when the thread has truly ended.
    """

    def __init__(self, size: int, *, grace: float) -> None:
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="skill")
        self._grace = grace

    async def run(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], ctx: TaskContext) -> Any:
        """Run ``func`` in a thread that has the caller's context variables, and return what it returns.

        On cancellation waits up to the grace for the thread, then raises ``CancelledError`` with the thread's future as
        `Lingering.future` when it still runs.
        """
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, _call, func, args, kwargs)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if future.cancel():  # it had not even started
                raise
            with contextlib.suppress(asyncio.CancelledError):  # asked twice: the grace is over
                await asyncio.wait({waiting}, timeout=self._grace)
            if not waiting.done():
                raise Lingering(future, ctx) from None
            return waiting.result()

    def close(self) -> None:
        """Let go of the threads without waiting for any."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Lingering(asyncio.CancelledError):
    """A cancelled task whose thread goes on: its slot is not free before ``future`` is done."""

    def __init__(self, future: Future[Any], ctx: TaskContext) -> None:
        super().__init__(f"the thread of {ctx!r} does not stop")
        self.future = future


def _call(func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return func(*args, **kwargs)
    except StopIteration as error:  # cannot travel through a future
        raise RuntimeError("the skill raised StopIteration") from error


async def run_skill(skill: Skill, ctx: TaskContext, threads: Threads) -> Any:
    """Bind the skill's arguments and run it where it belongs.

    Raises `InvalidInputError` for params that do not fit, ``CancelledError`` when the task was cancelled, and whatever
    the skill raises.
    """
    args, kwargs = skill.bind(ctx)
    try:
        if skill.is_async:
            return await skill.func(*args, **kwargs)
        return await threads.run(skill.func, args, kwargs, ctx)
    except TaskCancelledError as error:
        raise asyncio.CancelledError(*error.args) from None
