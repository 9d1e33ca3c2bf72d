"""Threads for file work, so that no event loop waits for a disk."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from avtomatika_worker.errors import ResourceExhaustedError

_P = ParamSpec("_P")
_T = TypeVar("_T")

_THREADS: Final = 8
EXHAUSTED: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE}
)
"""The system's errors for a full disk, quota or file size limit, or for no more memory or descriptors."""


def is_exhausted(error: OSError) -> bool:
    """Whether the system has run out of a resource. User code may put anything in an error's ``errno``."""
    number: object = error.errno
    return isinstance(number, int) and number in EXHAUSTED


class Disk:
    """The worker's threads for files. They start when first needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="files")

    async def run(self, func: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run ``func`` in a thread and return its result.

        If cancelled, this still waits for the call to end, as the files it uses must not be closed under it. Raises
        what ``func`` raises; a full disk is `ResourceExhaustedError`.
        """
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, partial(_call, partial(func, *args, **kwargs)))
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait({waiting})
                if not waiting.cancelled():
                    waiting.exception()  # nothing else will retrieve it
            raise

    def close(self) -> None:
        """Release the threads without waiting for any."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(func: Callable[[], _T]) -> _T:
    try:
        return func()
    except OSError as error:
        if is_exhausted(error):
            text = f"{os.strerror(error.errno or 0)}: {error.filename or 'files of the task'}"
            raise ResourceExhaustedError(text, {"errno": error.errno}) from error
        raise
