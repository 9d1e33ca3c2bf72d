"""Calls user functions that make long-lived values, and resumes those that are generators to clean up."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from avtomatika_worker._waiting import in_pool
from avtomatika_worker.errors import ResourceError
from avtomatika_worker.execution.children import Children
from avtomatika_worker.skills.binding import underlying

_log: Final = logging.getLogger("avtomatika_worker.resources")

_CANCEL_TIMEOUT: Final = 0.1
"""Seconds that an abandoned close gets to end after its cancellation."""

_END: Final = object()

RunPlain = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a plain user function and waits for it."""

End = Callable[[], "asyncio.Task[bool]"]
"""Starts closing what was made; the task returns False if the generator yielded a second time."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a function made. ``end``, if set, starts closing it."""

    value: Any
    end: End | None = None


class OneThread:
    """Runs plain functions in one dedicated thread: what is made in a thread is closed in the same one."""

    def __init__(self, name: str = "resource") -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def __call__(self, func: Callable[[], Any]) -> Any:
        """Run ``func`` and return its result. On cancellation, do not wait for it."""
        return await in_pool(self._pool, func)

    def close(self) -> None:
        """Let the thread end once its work is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def run_here(func: Callable[[], Any]) -> Any:
    """Run ``func`` at once, in the loop's thread."""
    return func()


class _Keeper:
    """Opens and closes an async generator in one asyncio task, as a cancel scope that it holds open requires."""

    def __init__(self, name: str, generator: AsyncGenerator[Any, Any], children: Children) -> None:
        self._name = name
        self._generator = generator
        self._ending = asyncio.Event()
        self._opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[bool] = children.start(self._keep(), name=f"resource {name}")

    async def open(self) -> Any:
        """Return the first value that the generator yields, or `_END` if it yields none. Raises what it raises."""
        first: set[asyncio.Future[Any]] = {self._opened, self._task}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await _give_up(self._task)
            raise
        if not self._opened.done():
            if self._task.cancelled():
                raise RuntimeError("it cancelled itself")
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
            except asyncio.CancelledError as error:  # by its own cancel scope, when one of its background tasks failed
                await self._generator.athrow(error)
                return False
            ended = await anext(self._generator, _END) is _END
            await self._generator.aclose()
        except StopAsyncIteration:
            return True
        except (SystemExit, KeyboardInterrupt) as error:  # leaving the task, it would end the event loop
            raise contained(error) from error
        return ended

    def _note_early_end(self, task: asyncio.Task[bool]) -> None:
        if self._ending.is_set():
            return
        _log.error(
            "resource %s ended by itself; skills that use it will fail until the worker is restarted",
            self._name,
            exc_info=None if task.cancelled() else task.exception(),
            extra={"action": "resource_ended", "resource": self._name},
        )


async def make(
    name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], run: RunPlain, children: Children
) -> Made:
    """Call ``func``, and return what it returns or first yields. Raises `ResourceError`, chained to what it raised.

    Plain functions are run by ``run``.
    """
    plain, end = underlying(func), None
    try:
        if inspect.isasyncgenfunction(plain):
            keeper = _Keeper(name, func(*args, **kwargs), children)
            value, end = await keeper.open(), keeper.end
        elif inspect.isgeneratorfunction(plain):
            steps: Generator[Any, Any, Any] = func(*args, **kwargs)
            value = await run(lambda: next(steps, _END))
            end = partial(_begin_end, name, steps, run, children)
        elif inspect.iscoroutinefunction(plain):
            value = await func(*args, **kwargs)
        else:
            value = await run(lambda: func(*args, **kwargs))
    except (Exception, SystemExit) as error:  # user code may raise anything: the caller reports it
        raise ResourceError(name, f"cannot be created: {type(error).__name__}: {error}") from error
    if value is _END:
        raise ResourceError(name, "cannot be created: its function ended without a yield")
    return Made(value, end)


async def end_within(seconds: float, end: End, complain: Callable[[str, BaseException | None], None]) -> None:
    """Close what was made; abandon it after ``seconds``. Problems go to ``complain``."""
    closing = end()
    await asyncio.wait({closing}, timeout=seconds)
    if not closing.done():
        await _give_up(closing)
        complain(f"was not closed within {seconds:.1f} s and is abandoned", None)
    elif closing.cancelled():
        complain("was cancelled while it was being closed", None)
    elif (error := closing.exception()) is not None:
        complain("failed while it was being closed", error)
    elif not closing.result():
        complain("yielded a second time; the code after that is not run", None)


def _begin_end(name: str, steps: Generator[Any, Any, Any], run: RunPlain, children: Children) -> asyncio.Task[bool]:
    return children.start(_end(steps, run), name=f"close resource {name}")


async def _end(steps: Generator[Any, Any, Any], run: RunPlain) -> bool:
    try:
        ended = await run(lambda: next(steps, _END) is _END)
        await run(steps.close)
    except (SystemExit, KeyboardInterrupt) as error:  # leaving the task, it would end the event loop
        raise contained(error) from error
    return cast("bool", ended)


def contained(error: SystemExit | KeyboardInterrupt) -> RuntimeError:
    """Return the exception to raise instead of one that would end the event loop."""
    called = f"it called sys.exit({error.code!r})" if isinstance(error, SystemExit) else "it raised KeyboardInterrupt"
    return RuntimeError(called)


async def _give_up(task: asyncio.Task[bool]) -> None:
    """Cancel a task, and wait for it only briefly."""
    task.cancel()
    await asyncio.wait({task}, timeout=_CANCEL_TIMEOUT)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nothing else retrieves it
