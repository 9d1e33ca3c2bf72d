"""What an exception keeps alive after it was dealt with: the frames that it left, and all their local variables."""

from __future__ import annotations

import contextlib
import inspect
from types import TracebackType
from typing import Final

_MAY_BE_SUSPENDED: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def release_frames(error: BaseException) -> None:
    """Let go of the frames of an exception that was dealt with, and of those that are chained to it or grouped in it.

    An exception that is part of a reference cycle would otherwise hold the local variables of a task that failed until
    the cyclic collector runs: gigabytes, where a skill works on large arrays (celery/billiard#311).
    """
    seen: dict[int, BaseException] = {}
    found = [error]
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        found.extend(other for other in (each.__cause__, each.__context__) if other is not None)
        grouped: tuple[BaseException, ...] = getattr(each, "exceptions", ()) if _is_group(each) else ()
        found.extend(grouped)
        _clear(each.__traceback__)
        BaseException.with_traceback(each, None)  # assigning fails where a class is frozen


def _is_group(error: BaseException) -> bool:
    return issubclass(type(error), BaseExceptionGroup)  # not isinstance: a class may pretend


def _clear(traceback: TracebackType | None) -> None:
    """Clear the frames of functions: whoever keeps the traceback, a log record for instance, keeps their lines only.

    Not those of coroutines and generators: one that caught the error and went on would be ended by it.
    """
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_flags & _MAY_BE_SUSPENDED:
            with contextlib.suppress(RuntimeError):  # it is still running
                traceback.tb_frame.clear()
        traceback = traceback.tb_next
