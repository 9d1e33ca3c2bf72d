"""Starts the interpreter of a skill process, and signals it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PROGRAM: Final = str(Path(__file__).with_name("guard.py"))


def start_interpreter(theirs: socket.socket, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the guard of a fresh interpreter, which holds the other end of the socket pair.

    It has the variables ``environ`` besides this process's.
    """
    with theirs:
        # The package is found there as here, but its own imports never resolve to a file of the user's project that
        # shares its name with a standard library module.
        path = "\n".join(each or os.getcwd() for each in sys.path)  # noqa: PTH109
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", _PROGRAM, str(theirs.fileno()), str(os.getpid()), path],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **environ} if environ else None,
            process_group=0,  # it can be killed with all that it starts, and Ctrl+C at the terminal is the worker's
        )


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """Kill a process and whatever it started that still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left (macOS: only zombies are)
        os.killpg(pid, signal.SIGKILL)
