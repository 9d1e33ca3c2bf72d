"""Makes a process's resources, and closes them in reverse order."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, cast

from avtomatika_worker.errors import ResourceError
from avtomatika_worker.execution.children import Children
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.skills.binding import Injectables, underlying
from avtomatika_worker.skills.resource import Resource
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.resources")

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that all resources of a process together get to be closed."""

_RESERVE: Final = 0.5
"""Seconds of them that are kept for each resource which has yet to be closed while one takes its time."""

_CANCEL_TIMEOUT: Final = 0.1
"""Seconds that a close which was given up gets to end."""

_END: Final = object()

RunPlain = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a plain function of the user's, and waits for it."""

_End = Callable[[], "asyncio.Task[bool]"]
"""Begins to close a resource; the task returns False when it yielded a second time."""


class OneThread:
    """Runs plain functions in one thread of their own, so that what is made in a thread is closed in the same one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="resource")

    async def __call__(self, func: Callable[[], Any]) -> Any:
        """Run ``func`` and return what it returns. Cancelled, this does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, func)

    def close(self) -> None:
        """Let the thread end when its work is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def run_here(func: Callable[[], Any]) -> Any:
    """Run ``func`` at once, in the thread of the loop."""
    return func()


class _Keeper:
    """Opens and closes an async generator in one task, to which a cancel scope belongs that it holds open."""

    def __init__(self, name: str, generator: AsyncGenerator[Any, Any], children: Children) -> None:
        self._name = name
        self._generator = generator
        self._ending = asyncio.Event()
        self._opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[bool] = children.start(self._keep(), name=f"resource {name}")

    async def open(self) -> Any:
        """Return what the generator yields first, `_END` if it yields nothing. Raises what it raises."""
        first: set[asyncio.Future[Any]] = {self._opened, self._task}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await _give_up(self._task)
            raise
        if not self._opened.done():
            if self._task.cancelled():
                raise RuntimeError("it was cancelled by itself")
            self._task.result()
            return _END
        self._task.add_done_callback(self._note_early_end)
        return self._opened.result()

    def end(self) -> asyncio.Task[bool]:
        """Resume the generator."""
        self._ending.set()
        return self._task

    async def _keep(self) -> bool:
        try:
            value = await anext(self._generator, _END)
            if value is _END:
                return True
            self._opened.set_result(value)
            try:
                await self._ending.wait()
            except asyncio.CancelledError as error:  # by a scope of its own: a background task of it failed
                await self._generator.athrow(error)
                return False
            ended = await anext(self._generator, _END) is _END
            await self._generator.aclose()
        except StopAsyncIteration:
            return True
        except SystemExit as error:  # out of a task it would end the event loop
            raise RuntimeError(f"it called sys.exit({error.code!r})") from error
        return ended

    def _note_early_end(self, task: asyncio.Task[bool]) -> None:
        if self._ending.is_set():
            return
        _log.error(
            "resource %s ended by itself; skills that use it will fail until the worker is started again",
            self._name,
            exc_info=None if task.cancelled() else task.exception(),
            extra={"action": "resource_ended", "resource": self._name},
        )


class Resources:
    """The resources of one process. ``given`` are values that are there already, by type: they are not made."""

    def __init__(
        self,
        wanted: Sequence[Resource],
        injectables: Injectables,
        run_plain: RunPlain = run_here,
        given: Mapping[Any, object] | None = None,
        world: World = REAL,
    ) -> None:
        self._monotonic = world.monotonic
        self.values: dict[Any, object] = dict(given or {})
        self._wanted = [each for each in wanted if each.kind not in self.values]
        self._injectables = injectables
        self._run_plain = run_plain
        self._children = Children()
        self._open: list[tuple[Resource, _End]] = []

    async def open(self) -> None:
        """Make all, in order. Raises `ResourceError` for the first that cannot be made; those before are closed."""
        try:
            for resource in self._wanted:
                began = self._monotonic()
                await self._make(resource)
                restore_logging()
                seconds = round(self._monotonic() - began, 3)
                _log.info(
                    "resource %s is ready after %.3f s",
                    resource.name,
                    seconds,
                    extra={"action": "resource_ready", "resource": resource.name, "seconds": seconds},
                )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close those that were generators, the last made first, in `CLOSE_TIMEOUT` seconds.

        One that fails or does not end, which is logged, keeps none of the others from being closed.
        """
        deadline = self._monotonic() + CLOSE_TIMEOUT
        while self._open:
            resource, end = self._open.pop()
            seconds = max(deadline - self._monotonic() - _RESERVE * len(self._open), _RESERVE)
            closing = end()
            await asyncio.wait({closing}, timeout=seconds)
            if not closing.done():
                await _give_up(closing)
                _log_close(resource, f"was not closed within {seconds:.1f} s and is given up")
            elif closing.cancelled():
                _log_close(resource, "was cancelled while it was closed")
            elif (error := closing.exception()) is not None:
                _log_close(resource, "failed while it was closed", error)
            elif not closing.result():
                _log_close(resource, "yielded a second time; what follows there is not run")
        self.values.clear()

    async def _make(self, resource: Resource) -> None:
        needed = {name: self.values[self._injectables.key_for(kind)] for name, kind in resource.needs.items()}
        func, plain = resource.definition.func, underlying(resource.definition.func)
        try:
            if inspect.isasyncgenfunction(plain):
                store = _Keeper(resource.name, func(**needed), self._children)
                value = await store.open()
                self._open.append((resource, store.end))
            elif inspect.isgeneratorfunction(plain):
                steps: Generator[Any, Any, Any] = func(**needed)
                value = await self._run_plain(lambda: next(steps, _END))
                self._open.append((resource, partial(self._begin_end, resource.name, steps)))
            elif inspect.iscoroutinefunction(plain):
                value = await func(**needed)
            else:
                value = await self._run_plain(lambda: func(**needed))
        except (Exception, SystemExit) as error:  # the user's code may raise anything: the start fails, and says why
            raise ResourceError(resource.name, f"it cannot be made: {type(error).__name__}: {error}") from error
        if value is _END:
            raise ResourceError(resource.name, "it cannot be made: it ended without a yield")
        self.values[resource.kind] = value

    def _begin_end(self, name: str, steps: Generator[Any, Any, Any]) -> asyncio.Task[bool]:
        return self._children.start(self._end(steps), name=f"close resource {name}")

    async def _end(self, steps: Generator[Any, Any, Any]) -> bool:
        try:
            ended = await self._run_plain(lambda: next(steps, _END) is _END)
            await self._run_plain(steps.close)
        except SystemExit as error:  # out of a task it would end the event loop
            raise RuntimeError(f"it called sys.exit({error.code!r})") from error
        return cast("bool", ended)


async def _give_up(task: asyncio.Task[bool]) -> None:
    """Cancel a task, and do not wait for it for long."""
    task.cancel()
    await asyncio.wait({task}, timeout=_CANCEL_TIMEOUT)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else looks at it


def _log_close(resource: Resource, problem: str, error: BaseException | None = None) -> None:
    _log.error(
        "resource %s %s",
        resource.name,
        problem,
        exc_info=error,
        extra={"action": "resource_close_failed", "resource": resource.name},
    )
