"""The steps of a shutdown: each has a limit, and whatever becomes of one, the next follows."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

_log: Final = logging.getLogger("avtomatika_worker.supervisor")

FORCED_TIMEOUT: Final = 1.0
"""Seconds for each step that is done even when a second request cuts the shutdown short."""

Work = Callable[[], Awaitable[object]]
"""What a step does."""


class Failures:
    """What went wrong in a worker's own parts, in the order of its coming; all of it is in the log."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    def add(self, what: str, error: BaseException, *, logged: bool = True) -> None:
        """Take note of an error. One that is no ``Exception`` would end whoever raises it: another one names it."""
        error = the_one(error)
        if not isinstance(error, Exception):
            problem = RuntimeError(f"{what} raised {type(error).__name__}")
            problem.__cause__ = error
            error = problem
        self.first = self.first or error
        if logged:
            text = "%s failed, which is a fault of this worker's: %r"
            _log.critical(text, what, error, exc_info=error, extra={"action": "part_failed"})


class Steps:
    """Runs steps as tasks of ``group``; once ``force`` is done, they have to be quick."""

    def __init__(self, group: asyncio.TaskGroup, force: asyncio.Future[None], failures: Failures) -> None:
        self._group = group
        self._force = force
        self._failures = failures

    async def run(self, name: str, work: Work, limit: float, *, in_haste: float = 0.0) -> bool:
        """Do one step for at most ``limit`` seconds; return whether it came to its end.

        Once it has to be quick it gets ``in_haste`` seconds, and is skipped for 0. It never raises: what a step raises
        is logged, and counts as a failure of the worker; one that takes too long is cancelled, and left behind if it
        does not end.
        """
        if self._force.done():
            if not in_haste:
                _cut(name, ": asked to be quick")
                return False
            limit = min(limit, in_haste)
        task = self._group.create_task(self._do(name, work), name=f"shutdown: {name}")
        waited: set[asyncio.Future[Any]] = {task} if in_haste else {task, self._force}
        await wait_through(waited, limit, lambda _: settle(self._force))
        if task.done():
            return not task.cancelled() and task.result()
        task.cancel()
        _cut(name, ": asked to be quick" if self._force.done() and not in_haste else " in time")
        return False

    async def _do(self, name: str, work: Work) -> bool:
        try:
            await work()
        except BaseException as error:  # noqa: BLE001 - the next step follows, whatever this one raises
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                return False  # for taking too long
            self._failures.add(f"the shutdown's step {name!r}", error)
            return False
        return True


async def wait_through(
    waited: set[asyncio.Future[Any]], timeout: float | None, on_cancel: Callable[[asyncio.CancelledError], object]
) -> None:
    """Wait until one of them is done, or ``timeout`` seconds. Cancelled meanwhile, call ``on_cancel`` and go on."""
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


def settle(future: asyncio.Future[None]) -> None:
    """Mark a request as made; made again, it stays so."""
    if not future.done():
        future.set_result(None)


def the_one(error: BaseException) -> BaseException:
    """Return the error itself where a group holds just one: what crashed is what people should read."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())  # only groups have it
    return the_one(inner[0]) if len(inner) == 1 else error


async def side_by_side(*works: Callable[[], Awaitable[object]]) -> None:
    """Await all; one that fails keeps none of the others from its end. Raises what the first of them raised."""
    failed: list[Exception] = []

    async def contained(work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised below, when all have ended
            failed.append(error)

    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(contained(work))
    if failed:
        raise failed[0]


async def at_once(work: Callable[[], object]) -> None:
    """Do ``work`` here and now."""
    work()


async def in_thread(work: Callable[[], object]) -> None:
    """Do ``work`` in a thread of its own: skills may have taken all of asyncio's, and it may hang."""
    done: Future[None] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # who waits may give up, and this goes on
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="closing", daemon=True).start()
    await asyncio.wrap_future(done)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cut(name: str, how: str) -> None:
    _log.warning("shutdown: could not %s%s", name, how, extra={"action": "shutdown_step_cut"})
