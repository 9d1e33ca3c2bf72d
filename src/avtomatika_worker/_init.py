"""What process 1 of a container has to do besides its work, done by a process of its own.

Everything that loses its parent becomes a child of process 1, which has to wait for it or the process table fills up.
A worker cannot do that itself: it would take the exit status away from whoever has started a process and waits for it
(``subprocess``, ``multiprocessing``, asyncio). So it leaves process 1 to a loop that does nothing else, as ``tini``
does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

_KERNEL: Final = 0x80
"""``si_code`` of a signal that the kernel has sent, the terminal's Ctrl+C: the worker in its group has it as well."""

_SIGNALLED: Final = 128


def leave_first_process() -> bool:
    """In process 1, go on in a child, and never return in process 1 itself: it passes on signals and reaps.

    Elsewhere this does nothing. Return False where a child is needed and cannot be forked, as threads run already.
    """
    if os.getpid() != 1 or sys.platform != "linux":
        return True
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return False
    everything = signal.valid_signals()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, everything)  # what is blocked is not dropped by the kernel
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return True
    os._exit(_look_after(child, everything))


def _look_after(child: int, signals: set[signal.Signals]) -> int:
    """Pass signals on to the child and reap whatever ends, until the child has; return its exit code."""
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
    """Reap all that have ended."""
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(one)
    return ended
