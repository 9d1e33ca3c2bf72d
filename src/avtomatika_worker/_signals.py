"""SIGINT, SIGTERM and SIGHUP, heard by a thread from a program's first line to its last.

The interpreter runs handlers in the main thread, between two steps of Python: neither while an app is being imported
nor while a skill blocks the event loop can that be relied on. So the handlers do nothing, and a thread reads the
numbers of the signals from the wake-up descriptor. As process 1 of a container a program has no other chance: what it
does not handle, the kernel drops.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from avtomatika_worker._atexit import exit_at_once
from avtomatika_worker._forks import in_forked_children

Listener = Callable[[int, int], None]
"""Called in the thread with a signal's number, and the how manyth it is since the listener was set."""

SIGNALLED: Final = 128
"""What is added to a signal's number for the exit code of a program that it has ended, as shells do."""


class _Ears:
    """What hears the signals of this process."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._passed_on = -1
        self.listener: Listener = end_at_once
        self.heard = 0

    def listen(self) -> None:
        """Read until the process ends."""
        while numbers := self._reader.recv(64):
            for number in numbers:
                if signal.getsignal(number) is _handle:
                    self.heard += 1
                    self.listener(number, self.heard)
            if self._passed_on >= 0:  # a handler of somebody else's event loop
                with contextlib.suppress(OSError):
                    os.write(self._passed_on, numbers)

    def take_over(self, number: int | None = None) -> None:
        """Take the wake-up descriptor, and pass signals on to who had it: each running event loop wants it.

        ``number``: a signal that has come, and that went to the former one.
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
            copy, old = os.dup(former), self._passed_on  # it may close its own at any time
            self._passed_on = copy
            if old >= 0:
                os.close(old)

    def leave_to_parent(self) -> None:
        """In a forked child: be deaf, and do what any program does on a signal."""
        signal.set_wakeup_fd(-1)
        for number in _STOP_SIGNALS:
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._reader.close()
        self._writer.close()
        if self._passed_on >= 0:
            os.close(self._passed_on)


_STOP_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_heard: Final = set[int]()
_ears: _Ears | None = None


def hear_signals(listener: Listener | None = None) -> None:
    """Let ``listener`` hear the signals that end a program; without one, the first ends the process at once.

    To be called in the main thread. SIGHUP is left alone where it is ignored (nohup). Called again, it changes the
    listener, counts from one again, and takes back what others have set meanwhile.
    """
    global _ears
    if _ears is None:
        _ears = _Ears()
        in_forked_children(_ears.leave_to_parent)
        threading.Thread(target=_ears.listen, name="signals", daemon=True).start()
    _ears.listener, _ears.heard = listener or end_at_once, 0
    for number in _STOP_SIGNALS:
        if number in {signal.SIGINT, signal.SIGTERM} or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
            _heard.add(number)
    _ears.take_over()


def hear_again() -> bool:
    """Take back signals that somebody else handles meanwhile; return whether there were any. In the main thread."""
    if _ears is not None:
        _ears.take_over()
    taken = [number for number in _STOP_SIGNALS if number in _heard and signal.getsignal(number) is not _handle]
    for number in taken:
        signal.signal(number, _handle)
    return bool(taken)


def ignore_signals() -> None:
    """Let signals change nothing any more: handlers end before Python does, and the exit code is known."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_at_once(number: int, _times: int) -> None:
    """End the process: nothing has begun that would have to be ended in order."""
    exit_at_once(SIGNALLED + number)


def end_well(_number: int, _times: int) -> None:
    """End a process that runs until a signal comes: it has come before there was anything to end in order."""
    exit_at_once(0)


def _handle(number: int, _frame: FrameType | None) -> None:
    """See to it that the thread hears it: an event loop that has begun to run has a wake-up descriptor of its own."""
    if _ears is not None:
        _ears.take_over(number)
