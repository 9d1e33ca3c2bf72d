"""Keeps a skill from harming the event loop that it shares with the worker.

An ``async def`` skill runs on the worker's main loop. It could stop that loop, cancel every task on it, or raise
``SystemExit`` in a task that it started, which asyncio propagates to whoever runs the loop. Any of these would end the
worker and every other task. So a skill may cancel only the tasks that it started itself, the methods that control the
loop refuse calls from skills, and `run_to_end` keeps running the loop after a ``SystemExit``.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, cast

_log: Final = logging.getLogger("avtomatika_worker.task")
_T = TypeVar("_T")

_owner: Final[contextvars.ContextVar[object | None]] = contextvars.ContextVar("avtomatika_worker.owner", default=None)
"""The task whose skill is running; None in the worker's own code. Whatever a skill starts inherits it."""

_REFUSED: Final = (
    "add_signal_handler",
    "close",
    "remove_signal_handler",
    "run_forever",
    "run_until_complete",
    "set_default_executor",
    "set_exception_handler",
    "set_task_factory",
    "shutdown_asyncgens",
    "shutdown_default_executor",
    "stop",
)
"""Methods that would take the loop away from everything else on it."""


class ExitedError(Exception):
    """Carries a non-``Exception`` out of a thread: a future raising GeneratorExit would close whatever awaits it."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(type(original).__name__)
        self.original: BaseException = original


class owned_by:  # noqa: N801 - used like a function; every task enters one, and a class costs less than a generator
    """Make everything started inside the block belong to the skill of ``owner``."""

    __slots__ = ("_owner", "_token")

    def __init__(self, owner: object) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._token = _owner.set(self._owner)

    def __exit__(self, *_: object) -> None:
        _owner.reset(self._token)


def context_owned_by(owner: object) -> contextvars.Context:
    """Return a copy of the current context; everything started in it belongs to the skill of ``owner``."""
    context = contextvars.copy_context()
    context.run(_owner.set, owner)
    return context


class ends_if_forked:  # noqa: N801 - as above
    """End a child process that a skill forked when it returns from the skill: it must not run the worker's code."""

    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            os._exit(0)


class OwnedTask(asyncio.Task[Any]):
    """An asyncio task that only the skill that started it can cancel; ``owner`` identifies that skill's task."""

    __slots__ = ("owner",)  # no __init__: one in Python would double the cost of creating a task

    owner: object

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, unless a skill that does not own it is asking."""
        caller = _owner.get()
        if caller is None or caller is getattr(self, "owner", caller):  # none yet: it is started at once
            return super().cancel(msg)
        _log.warning(
            "a skill tried to cancel a task it did not start: %s", self.get_name(), extra={"action": "skill_contained"}
        )
        return False


def contained_loop(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    """Make an event loop that skills cannot stop and whose tasks belong to whoever starts them."""
    base: Any = type(probe := make())
    probe.close()
    loop = cast("asyncio.AbstractEventLoop", _contained(base)())
    loop.set_task_factory(_new_task)
    return loop


def run_to_end(
    loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T], context: contextvars.Context | None = None
) -> _T:
    """Run ``main`` to completion, whatever else on the loop raises meanwhile; return its result or raise its error."""
    task = loop.create_task(main, context=context)
    running = contextvars.Context()  # the worker's, wherever this is called from
    while not task.done():
        try:
            running.run(loop.run_until_complete, task)
        except (SystemExit, KeyboardInterrupt) as error:
            if not task.done():
                _log.warning(
                    "%s was raised on the event loop; only the task or callback that raised it ends",
                    type(error).__name__,
                    exc_info=error,
                    extra={"action": "skill_contained"},
                )
        except RuntimeError:
            if task.done():
                raise
            _log.warning("the event loop was stopped; resuming it", extra={"action": "skill_contained"})
    return task.result()


def _new_task(loop: asyncio.AbstractEventLoop, coro: Any, **rest: Any) -> OwnedTask:
    context: contextvars.Context | None = rest.get("context")
    task = OwnedTask(coro, loop=loop, **rest)
    task.owner = _owner.get() if context is None else context.get(_owner)
    return task


def _contained(base: type[Any]) -> type[Any]:
    return type("ContainedLoop", (base,), {name: _refusing(base, name) for name in _REFUSED})


def _refusing(base: type[Any], name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _owner.get() is not None:
            raise RuntimeError(f"a skill must not call {name}() on the worker's event loop")
        return getattr(base, name)(self, *args, **kwargs)

    method.__name__ = name
    return method
