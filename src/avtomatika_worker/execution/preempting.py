"""A task's knowledge that its machine is going away: a cloud reclaims it, or a cluster drains it (`ctx.preempted`)."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from avtomatika_worker._boundaries import attempted, caught
from avtomatika_worker.checkpoints.keeper import StartTask

_log: Final = logging.getLogger("avtomatika_worker.task")

Callback = Callable[[], Any]
"""What a skill registers for the notice: a plain function or an ``async def``."""


class Preempting:
    """Whether a task's machine is about to be taken away, and the skill's callbacks for that. Thread-safe.

    Callbacks of an ``async def`` skill run on its loop; those of a plain ``def`` in threads of their own, as the
    skill's thread is busy.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, start: StartTask | None = None) -> None:
        """``loop`` is the skill's, where ``start`` starts tasks; None for a plain ``def``."""
        self.noticed: bool = False
        self.forward: Callback | None = None
        self._loop = loop
        self._start = start
        self._guard = threading.Lock()
        self._callbacks: list[tuple[Callback, contextvars.Context]] = []

    def add(self, callback: Callback) -> None:
        """Call ``callback`` on the notice, or at once if it has come."""
        entry = (callback, contextvars.copy_context())
        with self._guard:
            if not self.noticed:
                self._callbacks.append(entry)
                return
        self._call(*entry)

    def notice(self) -> None:
        """Record the notice and call the callbacks. Further calls do nothing."""
        with self._guard:
            if self.noticed:
                return
            self.noticed = True
            callbacks, self._callbacks = self._callbacks, []
        if self.forward is not None:
            self.forward()
        for each in callbacks:
            self._call(*each)

    def _call(self, callback: Callback, context: contextvars.Context) -> None:
        if self._loop is None:
            name = "preemption"
            threading.Thread(target=context.run, args=(_in_thread, callback), name=name, daemon=True).start()
        else:
            self._loop.call_soon_threadsafe(self._on_loop, callback, context=context)

    def _on_loop(self, callback: Callback) -> None:
        value = attempted(callback, _failed)
        if inspect.iscoroutine(value) and self._start is not None:
            self._start(_contained(value), name="preemption callback")


async def _contained(work: Coroutine[Any, Any, Any]) -> None:
    with caught(Exception) as kept:  # an exception ends the callback and nothing else
        await work
    if isinstance(kept.error, Exception):
        _failed(kept.error)


def _in_thread(callback: Callback) -> None:
    with caught() as kept:  # a SystemExit would end the thread silently
        value = callback()
        if inspect.iscoroutine(value):
            asyncio.run(_contained(value))
    if kept.error is not None:
        _failed(kept.error)


def _failed(error: BaseException) -> None:
    _log.error("a preemption callback failed", exc_info=error, extra={"action": "preemption_callback_failed"})
