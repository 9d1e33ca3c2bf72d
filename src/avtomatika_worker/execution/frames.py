"""Releases what a handled exception keeps alive: the frames it passed through, and all their local variables."""

from __future__ import annotations

import contextlib
import inspect
from types import TracebackType
from typing import Final

_MAY_BE_SUSPENDED: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def release_frames(error: BaseException) -> None:
    """Release the frames of a handled exception, and of those chained to it or grouped in it.

    An exception in a reference cycle would otherwise keep a failed task's local variables alive until the cyclic
    collector runs: gigabytes, if the skill works on large arrays (celery/billiard#311).
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
        BaseException.with_traceback(each, None)  # assignment fails if the class is frozen


def _is_group(error: BaseException) -> bool:
    return issubclass(type(error), BaseExceptionGroup)  # not isinstance: __class__ can lie


def _clear(traceback: TracebackType | None) -> None:
    """Clear the frames of functions: whatever keeps the traceback, such as a log record, keeps only line numbers.

    Frames of coroutines and generators are left alone: clearing would end one that caught the error and continued.
    """
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_flags & _MAY_BE_SUSPENDED:
            with contextlib.suppress(RuntimeError):  # it is still running
                traceback.tb_frame.clear()
        traceback = traceback.tb_next
