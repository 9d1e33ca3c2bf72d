"""SIGINT, SIGTERM and SIGHUP, received by a thread from a program's first line to its last.

Python runs signal handlers in the main thread, between bytecode instructions. That is not reliable while an app is
being imported or while a skill blocks the event loop. So the handlers do nothing, and a thread reads the signal numbers
from the wakeup descriptor. Handlers are needed nonetheless: for process 1 of a container, the kernel drops signals
without one.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from avtomatika_worker._atexit import LAST_WORDS, attempt_within, exit_at_once
from avtomatika_worker._boundaries import attempted
from avtomatika_worker._forks import in_forked_children

_log: Final = logging.getLogger("avtomatika_worker")

Listener = Callable[[int, int], None]
"""Called in the thread with the signal's number, and how many signals there were since the listener was set."""

SIGNALLED: Final = 128
"""Added to a signal's number, this is the exit code of a program that the signal ended, as in shells."""


class _SignalReader:
    """Receives the signals of this process."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._passed_on = -1
        self.listener: Listener = end_at_once
        self.heard = 0

    def listen(self) -> None:
        """Read signals until the process exits."""
        while numbers := self._reader.recv(64):
            for number in numbers:
                if signal.getsignal(number) is _handle:
                    self.heard += 1
                    # The next signal must be heard, whatever becomes of this one.
                    attempted(functools.partial(self.listener, number, self.heard), _report)
            if self._passed_on >= 0:  # an event loop's own wakeup descriptor
                with contextlib.suppress(OSError):
                    os.write(self._passed_on, numbers)

    def take_over(self, number: int | None = None) -> None:
        """Replace the wakeup descriptor, and pass signals on to the former one, which may be an event loop's.

        ``number`` is a signal that arrived meanwhile at the former descriptor.
        """
        own = self._writer.fileno()
        former = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        if former == own:
            return
        if number is not None:
            self._writer.send(bytes([number]))
        if former < 0:
            return
        with contextlib.suppress(OSError):
            copy, old = os.dup(former), self._passed_on  # its owner may close it at any time
            self._passed_on = copy
            if old >= 0:
                os.close(old)

    def leave_to_parent(self) -> None:
        """Restore the default signal handling. Called in a forked child."""
        signal.set_wakeup_fd(-1)
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._reader.close()
        self._writer.close()
        if self._passed_on >= 0:
            os.close(self._passed_on)


def _report(error: Exception) -> None:
    def write() -> None:
        _log.error(
            "handling a signal failed; this is a bug in the worker", exc_info=error, extra={"action": "signal_failed"}
        )

    attempt_within(LAST_WORDS, write)


_STOP_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_heard: Final = set[int]()
_reader: _SignalReader | None = None


def hear_signals(listener: Listener | None = None) -> None:
    """Call ``listener`` for each signal that ends programs; without one, the first signal ends the process at once.

    Must be called in the main thread. An ignored SIGHUP (nohup) stays ignored. A later call replaces the listener,
    starts counting at one again, and restores handlers that others have replaced meanwhile.
    """
    global _reader
    if _reader is None:
        _reader = _SignalReader()
        in_forked_children(_reader.leave_to_parent)
        threading.Thread(target=_reader.listen, name="signals", daemon=True).start()
    _reader.listener, _reader.heard = listener or end_at_once, 0
    for number in _STOP_SIGNALS:
        if number in {signal.SIGINT, signal.SIGTERM} or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
            _heard.add(number)
    _reader.take_over()


def hear_again() -> bool:
    """Restore handlers that others have replaced; return whether there were any. Must be called in the main thread."""
    if _reader is not None:
        _reader.take_over()
    taken = [number for number in _STOP_SIGNALS if number in _heard and signal.getsignal(number) is not _handle]
    for number in taken:
        signal.signal(number, _handle)
    return bool(taken)


def ignore_signals() -> None:
    """Ignore signals from now on: Python removes handlers before it exits, and the exit code is settled."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_at_once(number: int, _times: int) -> None:
    """Exit: nothing has started that would need an orderly shutdown."""
    exit_at_once(SIGNALLED + number)


def end_well(_number: int, _times: int) -> None:
    """Exit successfully: the signal arrived before anything started that would need an orderly shutdown."""
    exit_at_once(0)


def _handle(number: int, _frame: FrameType | None) -> None:
    """Make sure that the thread gets the signal: an event loop installs its own wakeup descriptor when it starts."""
    if _reader is not None:
        _reader.take_over(number)
