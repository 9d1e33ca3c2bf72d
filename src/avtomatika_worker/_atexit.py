"""The end of a process in which native threads run.

pyreqwest and obstore have threads of their own, which let go of Python objects at any time. One that does so while the
interpreter is torn down aborts the process without a word of Python's (seen with pyreqwest 0.15 and obstore 0.12.1:
one exit of a dozen right after a call, SIGABRT or "Fatal Python error: PyGILState_Release").
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

_PAUSE: Final = 0.1

_FLUSH_TIMEOUT: Final = 3.0
"""Seconds that a full pipe behind the output may keep the process."""


@functools.cache
def give_native_threads_time() -> None:
    """Let the process wait a moment before it ends: in a program of somebody else's that is all one can do."""
    atexit.register(time.sleep, _PAUSE)


def run_program(main: Callable[[], object]) -> None:
    """Run a program of ours, to be called first of all; it ends without the interpreter being torn down.

    Everything else happens that does at an exit: threads are waited for, ``atexit`` functions run, output is flushed.
    """
    codes: list[int] = []

    def end() -> None:
        if codes:
            exit_at_once(codes[0])

    atexit.register(end)  # the first to be registered runs last
    try:
        main()
    except SystemExit as error:
        codes.append(error.code if isinstance(error.code, int) else int(error.code is not None))
        raise
    codes.append(0)


def exit_at_once(code: int) -> NoReturn:
    """End the process with its output flushed, as far as anybody takes it, and nothing else done."""
    flushing = threading.Thread(target=_flush, daemon=True)
    try:
        flushing.start()
    except RuntimeError:  # too late for threads
        _flush()
    else:
        flushing.join(_FLUSH_TIMEOUT)
    os._exit(code)


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
