"""How the worker's processes start and exit.

They exit without tearing down the interpreter: obstore's native threads release Python objects at any time, and doing
so during the teardown aborts the process (seen with obstore 0.12.1: SIGABRT or "Fatal Python error:
PyGILState_Release"). They also exit in time, whereas Python would wait for every thread and every ``atexit`` function,
however long they take.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

_log: Final = logging.getLogger("avtomatika_worker")

EXIT_TIMEOUT: Final = 5.0
"""Seconds that threads and ``atexit`` functions get when a process exits; then it exits without them."""

_FLUSH_TIMEOUT: Final = 3.0
"""Seconds for flushing output, which possibly nobody reads."""

LAST_WORDS: Final = 1.0
"""Seconds for the log's handlers to take a line that is written while the process ends."""

_PAUSE: Final = 0.1


@functools.cache
def give_native_threads_time() -> None:
    """Make the process pause before it exits: in a program that is not ours, nothing more can be done."""
    atexit.register(time.sleep, _PAUSE)


def run_program(main: Callable[[], object]) -> None:
    """Run ``main`` and exit without tearing down the interpreter. Must be called before anything else.

    Everything else about an exit is as usual: threads are joined, ``atexit`` functions run, output is flushed.
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
        _be_gone_in_time(codes[0])
        raise
    codes.append(0)
    _be_gone_in_time(0)


def open_standard_streams() -> None:
    """Open the standard streams that the process was started without.

    Otherwise the next files and sockets would get their descriptors, and with them whatever libraries write to standard
    error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:  # a lower one was closed before
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True))


def write_error(text: str) -> None:
    """Write a line to standard error, if it is open: in one piece, since other threads may write, too."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def exit_in_time(code: int) -> NoReturn:
    """Exit as Python does, but within `EXIT_TIMEOUT`: whatever has not ended by then is abandoned."""
    _be_gone_in_time(code)
    sys.exit(code)


def exit_without_threads(code: int) -> NoReturn:
    """Exit without joining threads, which are known to hang; ``atexit`` functions get `EXIT_TIMEOUT`."""
    _be_gone_in_time(code)
    _tried(atexit._run_exitfuncs)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - nothing else runs them
    exit_at_once(code)


def exit_at_once(code: int) -> NoReturn:
    """Flush the output, as far as it can be written, and exit without doing anything else."""
    attempt_within(_FLUSH_TIMEOUT, _flush)
    os._exit(code)


def attempt_within(seconds: float, work: Callable[[], object]) -> None:
    """Do something that must not keep the process from ending: wait so long at most, and drop what it raises.

    Even a line for the log may never be written: its handlers are users' code, and may block.
    """
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        _tried(work)
        ended.set()

    # Not a Thread: when memory is short, its start() waits indefinitely for a thread that died as it began (observed).
    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # threads cannot be started any more
        _tried(work)
        return
    if not ended.wait(seconds) and not begun.is_set():
        _tried(work)


def _flush() -> None:
    for flush in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        _tried(flush)  # handlers are users' code, streams may be closed


def _tried(work: Callable[[], object]) -> None:
    with contextlib.suppress(BaseException):  # the process exits, whatever happens
        work()


@functools.cache
def _be_gone_in_time(code: int) -> None:
    try:
        threading.Thread(target=_exit_late, args=(code,), name="exit", daemon=True).start()
    except RuntimeError:  # threads cannot be started any more, and nothing would end a wait for the others
        exit_at_once(code)


def _exit_late(code: int) -> None:
    time.sleep(EXIT_TIMEOUT)
    names = [each.name for each in threading.enumerate() if _is_waited_for(each)]
    what = f"threads that do not end ({', '.join(names)})" if names else "atexit functions that do not end"
    attempt_within(LAST_WORDS, lambda: _log.warning("the process ends without %s", what, extra={"action": "exit_cut"}))
    _tried(_terminate_children)
    exit_at_once(code)


def _terminate_children() -> None:
    """Terminate the children that multiprocessing would join."""
    multiprocessing = sys.modules.get("multiprocessing")  # never imported for this
    for child in multiprocessing.active_children() if multiprocessing is not None else ():
        child.terminate()


def _is_waited_for(thread: threading.Thread) -> bool:
    """Return whether Python joins a thread at exit: it joins those of executors, too, even daemons."""
    if thread is threading.main_thread() or not thread.is_alive():
        return False
    of_executors = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    return not thread.daemon or thread in of_executors
