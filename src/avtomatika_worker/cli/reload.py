"""``--reload``: runs the command in a process of its own, restarted whenever a Python file changes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from avtomatika_worker._extras import install_hint
from avtomatika_worker._signals import ignore_signals
from avtomatika_worker.cli.terminal import echo
from avtomatika_worker.cli.watching import changes
from avtomatika_worker.cli.worker_app import UsageProblem

_FINISH: Final = 10.0
"""Seconds that running tasks get to finish after a file has changed; then the shutdown is cut short."""

_FORCED: Final = 5.0
"""Seconds that a shortened shutdown may take before the process is killed."""

_PATIENCE: Final = 3
"""Which signal kills the process: the first lets tasks finish, the second cuts that short."""

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_WE_ENDED_IT: Final = {-number for number in _SIGNALS}

_CHILD: Final = "from avtomatika_worker.cli.reload import reloaded; reloaded()"


def reload_command() -> NoReturn:
    """Run this process's own command without ``--reload``, and restart it whenever a Python file changes."""
    need_watchfiles()
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    sys.exit(Reloader(arguments, Path.cwd()).run())


def need_watchfiles() -> None:
    """Raise `UsageProblem` where the extra that ``--reload`` needs is not installed."""
    if importlib.util.find_spec("watchfiles") is None:
        raise UsageProblem(f"--reload needs watchfiles; {install_hint('reload')}")


def reloaded() -> None:
    """Run as the process that `Reloader` starts: the command, which does not outlive the process watching the files."""
    from avtomatika_worker.cli.__main__ import start

    descriptor, parent = int(sys.argv.pop(1)), int(sys.argv.pop(1))
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
        threading.Thread(target=_end_with, args=(descriptor,), name="reload", daemon=True).start()
        if sys.platform == "linux":  # the kernel's signal arrives even while an import blocks every thread
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(0)
    start()


def _end_with(descriptor: int) -> None:
    """End this process when the other end of a pipe is closed: gracefully, then cut short, then by force."""
    while os.read(descriptor, 1):
        pass
    if sys.platform != "linux":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_FINISH)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_FORCED)
    os.kill(os.getpid(), signal.SIGKILL)


class Reloader:
    """Keeps a command running while the Python files below a directory change.

    ``ended`` is called with the exit code of a process that ended by itself; ``asked``, in a signal handler, with the
    number of signals that have arrived.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        environ: Mapping[str, str] | None = None,
        ended: Callable[[int], None] = lambda _code: None,
        asked: Callable[[int], None] = lambda _times: None,
    ) -> None:
        self._arguments = tuple(arguments)
        self._environ = environ
        self._ended = ended
        self._asked = asked
        self._directory = directory
        self._life: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._signals = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._end_requested = False

    def run(self) -> int:
        """Run until a signal arrives, which the command gets too; return the exit code of its last process.

        No process is left when this returns or raises; if this process is killed, the other one ends by itself.
        """
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)
        try:
            return self._run()
        except BaseException:
            if self._process is not None:
                self._end(self._process)
            raise

    def _run(self) -> int:
        process = self._start()
        for files in changes(str(self._directory), self._stop, _say):
            if files:
                _say(f"{self._names(files)} changed: restarting")
                self._end(process)
                if self._stop.is_set():
                    break
                process = self._start()
            elif process.poll() is not None and not self._end_requested:
                _say(f"ended with exit code {_exit_code(process)}; it restarts when a Python file changes")
                self._end_requested = True
                self._ended(_exit_code(process))
        return self._wait(process)

    def _start(self) -> subprocess.Popen[bytes]:
        self._end_requested = False
        # The child holds the reading end; the other end closes when this process ends, however it ends.
        self._life = self._life or (os.pipe() if sys.platform != "win32" else (-1, -1))
        reading = self._life[0]
        # -B: the byte code of a file edited twice within a second would be taken for that of the newer text.
        options = (sys.executable, "-B", "-P", "-c", _CHILD, str(reading), str(os.getpid()))
        self._process = process = subprocess.Popen(  # noqa: S603 - our own command line
            (*options, *self._arguments), env=self._environ, pass_fds=(reading,) if reading >= 0 else ()
        )
        if self._stop.is_set():  # a signal arrived before there was a process to forward it to
            process.terminate()
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End the process: gracefully, then cut short, then by force."""
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
        self._asked(self._signals)
        if self._signals >= _PATIENCE:
            process.kill()
        elif number != signal.SIGINT:
            process.terminate()
        elif not _typed_at_the_terminal():
            process.send_signal(number)

    def _names(self, paths: Collection[str]) -> str:
        first = os.path.relpath(min(paths), self._directory)
        return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def _typed_at_the_terminal() -> bool:
    """Whether a SIGINT is the terminal's: the command got it too, and another would cut its shutdown short."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # standard input is not a terminal
        return False


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code as shells report it: 128 + the signal's number."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _say(text: str) -> None:
    echo(f"worker: {text}", err=True)
