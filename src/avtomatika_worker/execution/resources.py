"""Makes a process's resources, and closes them in reverse order."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

from avtomatika_worker.errors import ResourceError
from avtomatika_worker.skills.binding import Injectables, underlying
from avtomatika_worker.skills.resource import Resource

_log: Final = logging.getLogger("avtomatika_worker.resources")

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that all resources of a process together get to be closed."""

_END: Final = object()

RunPlain = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a plain function of the user's, and waits for it."""


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


class Resources:
    """The resources of one process. ``given`` are values that are there already, by type: they are not made."""

    def __init__(
        self,
        wanted: Sequence[Resource],
        injectables: Injectables,
        run_plain: RunPlain = run_here,
        given: Mapping[Any, object] | None = None,
    ) -> None:
        self.values: dict[Any, object] = dict(given or {})
        self._wanted = [each for each in wanted if each.kind not in self.values]
        self._injectables = injectables
        self._run_plain = run_plain
        self._open: list[tuple[Resource, Callable[[], Awaitable[bool]]]] = []

    async def open(self) -> None:
        """Make all, in order. Raises `ResourceError` for the first that cannot be made; those before are closed."""
        try:
            for resource in self._wanted:
                began = time.monotonic()
                await self._make(resource)
                seconds = round(time.monotonic() - began, 3)
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
        """Close those that were generators, the last made first. One that fails, which is logged, stops no other."""
        while self._open:
            resource, end = self._open.pop()
            try:
                ended = await end()
            except Exception:  # noqa: BLE001 - the user's code may raise anything, and the others are to be closed too
                _log.error(
                    "resource %s failed while it was closed",
                    resource.name,
                    exc_info=True,
                    extra={"action": "resource_close_failed", "resource": resource.name},
                )
            else:
                if not ended:
                    _log.error(
                        "resource %s yielded a second time; what follows there is not run",
                        resource.name,
                        extra={"action": "resource_close_failed", "resource": resource.name},
                    )
        self.values.clear()

    async def _make(self, resource: Resource) -> None:
        needed = {name: self.values[self._injectables.key_for(kind)] for name, kind in resource.needs.items()}
        func, plain = resource.definition.func, underlying(resource.definition.func)
        try:
            if inspect.isasyncgenfunction(plain):
                generator: AsyncGenerator[Any, Any] = func(**needed)
                value = await anext(generator, _END)
                self._open.append((resource, lambda: _end_async(generator)))
            elif inspect.isgeneratorfunction(plain):
                steps: Generator[Any, Any, Any] = func(**needed)
                value = await self._run_plain(lambda: next(steps, _END))
                self._open.append((resource, lambda: self._end(steps)))
            elif inspect.iscoroutinefunction(plain):
                value = await func(**needed)
            else:
                value = await self._run_plain(lambda: func(**needed))
        except Exception as error:  # the user's code may raise anything: the start fails, and says with what
            raise ResourceError(resource.name, f"it cannot be made: {type(error).__name__}: {error}") from error
        if value is _END:
            raise ResourceError(resource.name, "it cannot be made: it ended without a yield")
        self.values[resource.kind] = value

    async def _end(self, steps: Generator[Any, Any, Any]) -> bool:
        ended = await self._run_plain(lambda: next(steps, _END) is _END)
        await self._run_plain(steps.close)
        return cast("bool", ended)


async def _end_async(generator: AsyncGenerator[Any, Any]) -> bool:
    ended = await anext(generator, _END) is _END
    await generator.aclose()
    return ended
