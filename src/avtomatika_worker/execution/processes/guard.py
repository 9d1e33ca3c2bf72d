"""Guards a process for skills: run as a script, it becomes that process's parent before anything else is imported.

What a skill has started must not outlive its process, nor the worker. A process group does not hold what has begun a
session of its own; a subreaper (Linux) does: whatever loses its parent below it becomes its child. The guard waits for
two things only, the end of the process and SIGTERM, which the worker sends to have it killed and the kernel when the
worker is gone; then it kills all that is left below it, and ends as the process did. Elsewhere than on Linux it has the
process group only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_KILL_LIMIT = 5.0
"""Seconds for which what is left is killed again and again: it may go on starting others."""


def main() -> None:
    """Start the process and look after it; in the process itself, return."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    heard = {signal.SIGCHLD, signal.SIGTERM}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if _LINUX:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(1)
    guard, process = os.getpid(), os.fork()
    if process == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sys.argv[2] = str(guard)
        return
    os.close(descriptor)
    status = None
    while status is None and signal.sigwait(heard) != signal.SIGTERM:
        status = _reaped(process)
    _kill_all(process)
    _end_like(status if status is not None else int(signal.SIGKILL))


def _reaped(process: int) -> int | None:
    """Reap whatever has ended; return the status of the process if it is among that."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == process:
                return ended[1]
    return None


def _kill_all(process: int) -> None:
    """Kill whatever is left: children of those that die become ours."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    until = time.monotonic() + _KILL_LIMIT
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
            for child in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.001)


def _children() -> list[int]:
    """Return the ids of this process's children (on Linux)."""
    if not _LINUX:
        return []
    us, found = str(os.getpid()), list[int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "stat").read_text("latin-1").rpartition(")")[2].split()[1] == us:
                    found.append(int(entry.name))
    return found


def _end_like(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it has written its own
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
    # The package is found here as in the worker. What comes first in the path is Python's own, so that nothing imported
    # here is ever a file of the project's that is called like a module of the standard library.
    sys.path += [each for each in sys.argv.pop().splitlines() if each not in sys.path]
    from avtomatika_worker.execution.processes.child import main as run

    run()
