"""A minimal init: does what process 1 of a container has to do, in a separate process.

Orphaned processes become children of process 1, which has to reap them, or the process table fills up. A worker cannot
do that itself: it would steal the exit status from whoever started a process and waits for it (``subprocess``,
``multiprocessing``, asyncio). So process 1 becomes a loop that does nothing else, like ``tini``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

_KERNEL: Final = 0x80
"""``si_code`` of signals from the kernel, such as the terminal's Ctrl+C: the worker's process group gets these, too."""

_SIGNALLED: Final = 128


def leave_first_process() -> bool:
    """Continue in a child if this is process 1, which then only forwards signals and reaps, and never returns from
    here.

    In other processes this does nothing. Returns False if a child is needed but cannot be forked, since threads run.
    """
    if os.getpid() != 1 or sys.platform != "linux":
        return True
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return False
    everything = signal.valid_signals()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, everything)  # the kernel does not drop blocked signals
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return True
    os._exit(_look_after(child, everything))


def _look_after(child: int, signals: set[signal.Signals]) -> int:
    """Forward signals to the child and reap processes until the child has exited; return its exit code."""
    while True:
        came = signal.sigwaitinfo(signals)
        if came.si_signo != signal.SIGCHLD:
            if came.si_code != _KERNEL:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, came.si_signo)
            continue
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else _SIGNALLED - code


def _ended() -> list[tuple[int, int]]:
    """Reap all exited processes; return their ids and statuses."""
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(one)
    return ended
