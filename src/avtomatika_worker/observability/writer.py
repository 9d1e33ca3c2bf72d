"""A thread that writes log lines, so that a blocked stream, such as a full pipe, never blocks the caller."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, TextIO

_log: Final = logging.getLogger("avtomatika_worker.log")

MOST_WAITING: Final = 2 * 2**20
"""The most characters waiting to be written; further lines are dropped and counted."""

FLUSH_TIMEOUT: Final = 1.0
"""Seconds without progress after which waiting for the remaining lines ends."""

_GATHER: Final = 0.01
"""Seconds between writes: under load each takes many lines; a single line does not wait."""

_PIECE: Final = 64 * 1024
_LOOK_AGAIN: Final = 0.01


class Writer:
    """Writes to ``stream`` in the order of the calls to `write`, which never blocks. Starts its thread at once."""

    def __init__(self, stream: TextIO, most: int = MOST_WAITING) -> None:
        self._stream = stream
        self._most = most
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a finalizer may log while this is held
        self._taken = 0
        self._written = 0
        self._dropped = 0
        self._threadless = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        _writers.add(self)

    def write(self, text: str) -> None:
        """Queue lines for writing; without room they are dropped. May be called from any thread."""
        if self._threadless:
            self._write(text)
            return
        with self._lock:
            if self._taken - self._written + len(text) > self._most:
                self._dropped += text.count("\n")
                return
            self._taken += len(text)
            self._lines.put(text)

    def flush(self) -> bool:
        """Wait until everything is written, as long as there is progress; return whether it is."""
        seen, until = self._written, time.monotonic() + FLUSH_TIMEOUT
        while self._taken > self._written and self._thread.is_alive() and not self._threadless:
            if self._written != seen:
                seen, until = self._written, time.monotonic() + FLUSH_TIMEOUT
            elif time.monotonic() >= until:
                return False
            time.sleep(_LOOK_AGAIN / 10)
        return True

    def close(self) -> None:
        """End the thread once everything is written. Later lines are written by the caller."""
        self._lines.put(None)
        if self.flush():
            self._threadless = True

    def forked(self) -> None:
        """Continue in a forked process, which has no such thread: the parent writes the waiting lines."""
        self._threadless = True

    def _run(self) -> None:
        while True:
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    lines.append(self._lines.get_nowait())
            text = "".join(line for line in lines if line is not None)
            self._write(text)
            self._written += len(text)
            if None in lines:
                return
            self._report_dropped()
            time.sleep(_GATHER)

    def _report_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            _log.warning(
                "%d lines of this log were dropped: its reader is too slow", dropped, extra={"action": "log_dropped"}
            )

    def _write(self, text: str) -> None:
        """Write to the descriptor itself: a stream being written to holds a lock that an exit would wait for."""
        with contextlib.suppress(OSError, ValueError):  # the reader is gone, or the stream is closed
            if sys.platform == "win32":
                self._stream.write(text)
                self._stream.flush()
                return
            data = memoryview(text.encode(self._stream.encoding or "utf-8", self._stream.errors or "backslashreplace"))
            while data:
                try:
                    data = data[os.write(self._stream.fileno(), data[:_PIECE]) :]
                except BlockingIOError:  # another process made it non-blocking
                    select.select([], [self._stream], [], 1.0)


_writers: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()


def _forked() -> None:
    for writer in list(_writers):
        writer.forked()


_register: Final[Callable[..., None] | None] = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_forked)
