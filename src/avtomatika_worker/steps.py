"""The steps of a shutdown: each has a time limit, and the next one always follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from avtomatika_worker._boundaries import caught
from avtomatika_worker._waiting import is_being_cancelled, settle, the_one, wait_through

_log: Final = logging.getLogger("avtomatika_worker.supervisor")

FORCED_TIMEOUT: Final = 1.0
"""Seconds for each step that is not skipped when a second request cuts the shutdown short."""

LEAST_TIMEOUT: Final = 0.25
"""Seconds for each step when the machine should be gone already."""

Work = Callable[[], Awaitable[object]]
"""The work of a step."""


class Failures:
    """Collects the failures of a worker's own parts. Logs all of them, keeps the first."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    def add(self, what: str, error: BaseException, *, logged: bool = True) -> None:
        """Record an error. One that is not an ``Exception`` would end whoever raises it: a RuntimeError wraps it."""
        error = the_one(error)
        if not isinstance(error, Exception):
            problem = RuntimeError(f"{what} raised {type(error).__name__}")
            problem.__cause__ = error
            error = problem
        self.first = self.first or error
        if logged:
            _log.critical(
                "%s failed; this is a bug in the worker: %r",
                what,
                error,
                exc_info=error,
                extra={"action": "part_failed"},
            )


class Steps:
    """Runs steps as tasks of ``group``. Once ``force`` is done, the remaining steps are cut short.

    ``until`` is the event loop's time when the machine is taken away, if it is: no step may take longer than that.
    """

    def __init__(self, group: asyncio.TaskGroup, force: asyncio.Future[None], failures: Failures) -> None:
        self._group = group
        self._force = force
        self._failures = failures
        self.until: float | None = None

    async def run(self, name: str, work: Work, limit: float, *, in_haste: float = 0.0) -> bool:
        """Run one step for at most ``limit`` seconds; return whether it completed.

        Once forced, it gets at most ``in_haste`` seconds, and is skipped if that is 0. Never raises: an error of the
        step is logged and counts as a failure of the worker. A step that takes too long is cancelled, and left behind
        if it still does not end.
        """
        if self._force.done():
            if not in_haste:
                cut(name, ": the shutdown was cut short")
                return False
            limit = min(limit, in_haste)
        if self.until is not None:
            limit = min(limit, max(LEAST_TIMEOUT, self.until - asyncio.get_running_loop().time()))
        task = self._group.create_task(self._do(name, work), name=f"shutdown: {name}")
        waited: set[asyncio.Future[Any]] = {task} if in_haste else {task, self._force}
        await wait_through(waited, limit, lambda _: settle(self._force))
        if task.done():
            return not task.cancelled() and task.result()
        task.cancel()
        cut(name, ": the shutdown was cut short" if self._force.done() and not in_haste else " in time")
        return False

    async def _do(self, name: str, work: Work) -> bool:
        with caught() as kept:  # the next step must follow, whatever this one raises
            await work()
        error = kept.error
        if error is not None and not (isinstance(error, asyncio.CancelledError) and is_being_cancelled()):
            self._failures.add(f"the shutdown step {name!r}", error)
        return error is None  # also False if it was cancelled for taking too long


def cut(name: str, how: str) -> None:
    """Log that a step was not completed."""
    _log.warning("shutdown: could not %s%s", name, how, extra={"action": "shutdown_step_cut"})
