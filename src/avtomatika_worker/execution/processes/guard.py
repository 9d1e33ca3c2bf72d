"""Guards a skill process: run as a script, it becomes that process's parent before anything else is imported.

Processes that a skill starts must not outlive the skill process or the worker. A process group is not enough, since a
process can leave it by starting a session; a subreaper (Linux) is: every orphaned descendant becomes its child. The
guard waits for only two things: the end of the process, and SIGTERM, which the worker sends to have the process killed
and the kernel sends when the worker is gone. Then it kills every remaining descendant, and ends as the process did. On
systems other than Linux it has only the process group.
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
"""Seconds during which to keep killing descendants, as they may keep starting others."""


def main() -> None:
    """Start the process and guard it; in the process itself, return."""
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
    """Reap every child that has ended; return the status of the process if it is one of them."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == process:
                return ended[1]
    return None


def _kill_all(process: int) -> None:
    """Kill every descendant that is left: children of those that die become ours."""
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
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the process has already dumped its own core
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
    # The package is found as in the worker. Python's own directories come first in the path, so no import here ever
    # resolves to a file of the user's project that shares its name with a standard library module.
    sys.path += [each for each in sys.argv.pop().splitlines() if each not in sys.path]
    from avtomatika_worker.execution.processes.child import main as run

    run()
