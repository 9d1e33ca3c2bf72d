"""Ways to wait that leave no task behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from avtomatika_worker._boundaries import caught

_T = TypeVar("_T")


async def first_of(*waits: Callable[[], Awaitable[object]], timeout: float | None = None) -> None:
    """Wait for the first of ``waits``, for at most ``timeout`` seconds, and cancel the rest. Raises what one raises."""

    async def awaited(wait: Callable[[], Awaitable[object]]) -> None:
        await wait()

    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(awaited(wait)) for wait in waits]
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as error:
        failed = the_one(error)
    if failed is not None:
        raise failed


async def side_by_side(*works: Callable[[], Awaitable[object]]) -> None:
    """Await all ``works``; one that fails does not stop the others. Raises the first failure afterwards."""
    failed: list[BaseException] = []

    async def contained(work: Callable[[], Awaitable[object]]) -> None:
        with caught(Exception) as kept:
            await work()
        if kept.error is not None:
            failed.append(kept.error)

    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(contained(work))
    if failed:
        raise failed[0]


async def wait_through(
    waited: set[asyncio.Future[Any]], timeout: float | None, on_cancel: Callable[[asyncio.CancelledError], object]
) -> None:
    """Wait until one of ``waited`` is done, for at most ``timeout`` seconds.

    If this is cancelled meanwhile, it calls ``on_cancel`` and continues to wait.
    """
    loop = asyncio.get_running_loop()
    until = None if timeout is None else loop.time() + timeout
    while True:
        left = None if until is None else max(0.0, until - loop.time())
        try:
            await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:
            on_cancel(error)
        else:
            return


async def in_thread(work: Callable[[], object]) -> None:
    """Do ``work`` in a new thread: skills may occupy all of asyncio's threads, and ``work`` may hang."""
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()  # the caller may be cancelled at any time, the thread goes on

    def run() -> None:
        with caught() as kept:
            work()
        finish(done, kept.error)

    threading.Thread(target=run, name="closing", daemon=True).start()
    await asyncio.wrap_future(done)


async def in_pool(pool: Executor, func: Callable[..., _T], *args: object) -> _T:
    """Return what ``func``, a user's function, returns in a thread of ``pool``. Cancelled, this does not wait for it.

    Raises what it raises; RuntimeError for StopIteration, which Python 3.11 cannot get through a future: whoever
    awaits that would wait indefinitely.
    """

    def call() -> _T:
        try:
            return func(*args)
        except StopIteration as error:
            raise RuntimeError("it raised StopIteration") from error

    return await asyncio.get_running_loop().run_in_executor(pool, call)


async def at_once(work: Callable[[], object]) -> None:
    """Do ``work`` synchronously."""
    work()


def is_being_cancelled() -> bool:
    """Return whether the current task was cancelled: a CancelledError is an error otherwise."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def settle(future: asyncio.Future[None]) -> None:
    """Mark a request as made. Repeated calls change nothing."""
    if not future.done():
        future.set_result(None)


def finish(done: Future[None], error: BaseException | None) -> None:
    """Settle ``done`` with the error that ended the work, or None."""
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def the_one(error: BaseException) -> BaseException:
    """Return the only error in a group, so that people read what crashed; any other error is returned unchanged."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())  # only groups have it
    return the_one(inner[0]) if len(inner) == 1 else error
