"""Processes whose output is kept, and what to wait for in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class ProcessError(AssertionError):
    """A process that did not do what a test waits for."""


class ManagedProcess:
    """A process that runs in the background; a thread collects its output, so that it never blocks on a full pipe.

    With ``own_session`` a Ctrl-C in the terminal does not reach it.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, own_session: bool = False
    ) -> None:
        self.name = name
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self._process = subprocess.Popen(
            command,
            env=_environment(env),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=own_session,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def line_count(self) -> int:
        """How many lines it has written."""
        return len(self._lines)

    def output(self, since: int = 0) -> str:
        """Return what it wrote from line ``since`` on."""
        return "".join(self._lines[since:])

    def wait_for_line(self, matches: Callable[[str], bool], *, timeout: float, since: int = 0) -> str:
        """Return the first line that matches. Raises `ProcessError` when none comes, or the process ends."""
        deadline = time.monotonic() + timeout
        seen = since
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if matches(line):
                        return line
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    what = "ended" if self._closed else f"has not written what is waited for in {timeout:.0f} s"
                    raise ProcessError(f"{self.name} {what}; its output:\n{self.output()}")
                self._changed.wait(left)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        """Return the exit code. Raises `ProcessError` when it runs on."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} still runs after {timeout} s; its output:\n{self.output()}") from None
        self._reader.join(timeout=5)
        return code

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.running:
            self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return ``variables`` and what every process needs: settings, proxies and the like of the caller stay out."""
    kept = {name: value for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if (value := os.environ.get(name))}
    return {**kept, "PYTHONUNBUFFERED": "1", **variables}
