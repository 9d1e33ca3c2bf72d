"""``--reload``: the same command in a process of its own, which is started again whenever a Python file changes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click

from avtomatika_worker._extras import install_hint
from avtomatika_worker._signals import ignore_signals
from avtomatika_worker.cli.app import UsageProblem

_FINISH: Final = 10.0
"""Seconds that running tasks get to finish when a file has changed; then the shutdown is cut short."""

_FORCED: Final = 5.0
"""Seconds that a shutdown cut short may take before the process is killed."""

_LOOK: Final = 500
"""Milliseconds after which it is noticed that the process has ended by itself."""

_PATIENCE: Final = 3
"""The how manyth signal kills the process: the first lets tasks finish, the second cuts that short."""

_WE_ENDED_IT: Final = {-signal.SIGINT, -signal.SIGTERM}


def reload_command() -> NoReturn:
    """Run this process's own command, without ``--reload``, and start it again whenever a Python file changes."""
    if importlib.util.find_spec("watchfiles") is None:
        raise UsageProblem(f"--reload needs watchfiles; {install_hint('reload')}")
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    # -B: byte code of a file edited twice within a second would be taken for that of its newest text.
    reloader = Reloader([sys.executable, "-B", "-m", "avtomatika_worker.cli", *arguments], Path.cwd())
    sys.exit(reloader.run())


class Reloader:
    """Keeps a command running while the Python files below a directory change."""

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        self._command = tuple(command)
        self._directory = directory
        self._stop = threading.Event()
        self._signals = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._end_told = False

    def run(self) -> int:
        """Run until SIGINT or SIGTERM, which the command gets too. Return the exit code of its last process."""
        from watchfiles import PythonFilter, watch

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        process = self._start()
        changed = watch(
            self._directory,
            watch_filter=PythonFilter(extra_extensions=(".env",)),
            stop_event=self._stop,
            rust_timeout=_LOOK,
            yield_on_timeout=True,
        )
        for changes in changed:
            if changes:
                self._end(process)
                if self._stop.is_set():
                    break
                _say(f"{self._names([path for _, path in changes])} changed: starting again")
                process = self._start()
            elif process.poll() is not None and not self._end_told:
                _say(f"ended with exit code {_exit_code(process)}; it starts again when a Python file changes")
                self._end_told = True
        return self._wait(process)

    def _start(self) -> subprocess.Popen[bytes]:
        self._end_told = False
        self._process = process = subprocess.Popen(self._command)  # noqa: S603 - our own command line
        if self._stop.is_set():  # a signal came before there was a process to pass it on to
            process.terminate()
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End the process: politely, then cut short, then by force."""
        for patience in (_FINISH, _FORCED):
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            return
        process.kill()
        process.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        process.wait()
        ignore_signals()
        return 0 if process.returncode in _WE_ENDED_IT else _exit_code(process)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()
        self._signals += 1
        process = self._process
        if process is None:
            return
        if self._signals >= _PATIENCE:
            process.kill()
        elif not (number == signal.SIGINT and _typed_at_the_terminal()):
            process.send_signal(number)

    def _names(self, paths: Collection[str]) -> str:
        first = os.path.relpath(min(paths), self._directory)
        return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def _typed_at_the_terminal() -> bool:
    """Whether a SIGINT is the terminal's: the command got it too, and a second one would cut its shutdown short."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # standard input is no terminal
        return False


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code as shells give it, 128 + the number of the signal."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _say(text: str) -> None:
    click.echo(f"worker: {text}", err=True)
