"""A thread with an event loop of its own, for what must stay alive while a skill blocks the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from avtomatika_worker._boundaries import caught
from avtomatika_worker._waiting import the_one

_T = TypeVar("_T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Service = Callable[[], Coroutine[Any, Any, None]]


class LinkThreadEndedError(RuntimeError):
    """The link thread does not run, or has ended."""


class LinkThread:
    """Runs ``services`` in one task group: the first that fails ends the others and the thread.

    ``ended`` is done once the thread's loop is closed. ``failure`` is the error that ended it, None after `stop`.
    """

    def __init__(self, services: Sequence[Service], loop_factory: LoopFactory) -> None:
        self._services = services
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()
        self._up = threading.Event()
        self.ended: Future[None] = Future()
        self.failure: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="link", daemon=True)

    def start(self) -> None:
        """Start the thread. On return its loop is running."""
        self._thread.start()
        self._up.wait()

    async def call(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run ``work()`` on the link thread and return its result. Raises what it raises.

        Raises `LinkThreadEndedError` if the thread is not running, or ends first.
        """
        done: Future[_T] = Future()

        async def answer() -> None:
            try:
                done.set_result(await work())
            except asyncio.CancelledError:  # the work was cancelled, not the caller: do not cancel that
                done.set_exception(LinkThreadEndedError("the call was cancelled by the end of the link thread"))
                raise
            except BaseException as error:  # noqa: BLE001 - raised in the caller's loop
                done.set_exception(error)

        def begin() -> None:  # on the link thread
            if done.set_running_or_notify_cancel():
                _begin(self._group, answer())

        if self._loop is None or self.ended.done():
            raise LinkThreadEndedError("the link thread does not run")
        try:
            self._loop.call_soon_threadsafe(begin)
        except RuntimeError:  # its loop has just been closed
            raise LinkThreadEndedError("the link thread has ended") from None
        answered, ended = asyncio.wrap_future(done), asyncio.wrap_future(self.ended)
        either: set[asyncio.Future[Any]] = {answered, ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            answered.cancel()  # the result is no longer wanted
            raise
        if not answered.done():
            answered.cancel()
            raise LinkThreadEndedError("the link thread ended meanwhile")
        return answered.result()

    async def until_ended(self) -> None:
        """Wait until the thread has ended. Raises the error that ended it."""
        await asyncio.wait({asyncio.wrap_future(self.ended)})  # cancelling that future would cancel the thread's own
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        """Cancel the services and join the thread, if it was started."""
        if self._loop is None:
            return
        if self._main is not None and not self.ended.done():
            with contextlib.suppress(RuntimeError):  # its loop was closed at this very moment
                self._loop.call_soon_threadsafe(self._main.cancel)
        await asyncio.wait({asyncio.wrap_future(self.ended)})
        self._thread.join()  # it has nothing left to do

    def _run(self) -> None:
        with caught() as kept, asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._serve())
        if kept.error is not None and not isinstance(kept.error, asyncio.CancelledError):
            self.failure = the_one(kept.error)  # the main loop raises it
        self.ended.set_result(None)
        self._up.set()

    async def _serve(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._up.set()
        async with self._group as group:
            for service in self._services:
                group.create_task(service())


def _begin(group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` in ``group``, unless the group is shutting down."""
    try:
        group.create_task(work)
    except RuntimeError:
        work.close()
