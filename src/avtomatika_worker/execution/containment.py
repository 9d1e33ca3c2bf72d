"""Keeps what a skill does to its event loop that skill's own affair.

An ``async def`` skill shares the main loop with the worker. With its own hands it could stop that loop, cancel every
task there is, or raise ``SystemExit`` in a task that it has started, which asyncio passes on to whoever runs the
loop. Each of these would end the worker and every other task. So a task may cancel only what its own skill has
started, the loop's own switches refuse skills, and `run_to_end` goes on where a ``SystemExit`` has left the loop.
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
"""Which task's skill runs here; None where the worker itself does. What a skill starts inherits it."""

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
"""What would take the loop away from everybody else on it."""


class ExitedError(Exception):
    """Carries what is no ``Exception`` out of a thread: a future that raises GeneratorExit closes whoever awaits it."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(type(original).__name__)
        self.original: BaseException = original


class owned_by:  # noqa: N801 - reads as the function it is; a class, for every task enters one
    """Let what is started inside the block belong to the skill of ``owner``."""

    __slots__ = ("_owner", "_token")

    def __init__(self, owner: object) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._token = _owner.set(self._owner)

    def __exit__(self, *_: object) -> None:
        _owner.reset(self._token)


def context_owned_by(owner: object) -> contextvars.Context:
    """Return a copy of the current context in which all that is started belongs to the skill of ``owner``."""
    context = contextvars.copy_context()
    context.run(_owner.set, owner)
    return context


class ends_if_forked:  # noqa: N801 - as above
    """End a child process that a skill has forked and that has come out of the skill: the worker's code is not its."""

    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._pid:
            os._exit(0)


class OwnedTask(asyncio.Task[Any]):
    """A task that a skill can cancel only when it has started it: ``owner`` is whose skill runs in it."""

    __slots__ = ("owner",)  # and no __init__: one in Python would double what it takes to make a task

    owner: object

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, unless it belongs to somebody else than the skill that asks."""
        caller = _owner.get()
        if caller is None or caller is getattr(self, "owner", caller):  # none yet: it is started at once
            return super().cancel(msg)
        _log.warning(
            "a skill tried to cancel what it has not started: %s", self.get_name(), extra={"action": "skill_contained"}
        )
        return False


def contained_loop(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    """Make an event loop which skills cannot stop, and whose tasks belong to whoever starts them."""
    base: Any = type(probe := make())
    probe.close()
    loop = cast("asyncio.AbstractEventLoop", _contained(base)())
    loop.set_task_factory(_new_task)
    return loop


def run_to_end(
    loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T], context: contextvars.Context | None = None
) -> _T:
    """Run ``main`` to its end, whatever else on the loop raises meanwhile; return what it returns, or raise it."""
    task = loop.create_task(main, context=context)
    running = contextvars.Context()  # of the worker, wherever this is called
    while not task.done():
        try:
            running.run(loop.run_until_complete, task)
        except (SystemExit, KeyboardInterrupt) as error:
            if not task.done():
                _log.warning(
                    "%s was raised on the event loop; it ends the task or callback that has raised it",
                    type(error).__name__,
                    exc_info=error,
                    extra={"action": "skill_contained"},
                )
        except RuntimeError:
            if task.done():
                raise
            _log.warning("the event loop was stopped; it goes on", extra={"action": "skill_contained"})
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
            raise RuntimeError(f"a skill must not call {name}() of the worker's event loop")
        return getattr(base, name)(self, *args, **kwargs)

    method.__name__ = name
    return method
