"""Keeps children forked by user code from inheriting the worker's signal handling and sockets.

``multiprocessing`` and ``ProcessPoolExecutor`` fork by default on Linux before Python 3.14. A forked child inherits the
worker's handlers and wakeup descriptor, so that a signal for the child would reach the worker. It also inherits every
descriptor, so that a connection or a port would stay open for as long as the child lives.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from avtomatika_worker._boundaries import attempted

_HELD: Final = frozenset(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
"""Signals that are blocked during a fork: otherwise one could run the worker's handler in the child."""

_actions: Final[dict[object, Callable[[], None]]] = {}
_before: Final = threading.local()


def in_forked_children(action: Callable[[], None]) -> Callable[[], None]:
    """Call ``action`` first in every child that is forked from now on; return a function that undoes this."""
    _watch()
    key = object()
    _actions[key] = action

    def take_back() -> None:
        _actions.pop(key, None)

    return take_back


def close_in_forked_children(descriptor: int) -> Callable[[], None]:
    """Close a descriptor in every child; return a function that undoes this, to be called before it is closed here.

    Where it is not called (an event loop was closed before its connections), the number may be another file's by then,
    which the child needs: only what was open at this call is closed.
    """
    if sys.platform == "win32":  # no process is forked
        return lambda: None
    return in_forked_children(functools.partial(_close, descriptor, _identity(descriptor)))


def _close(descriptor: int, identity: tuple[int, int] | None) -> None:
    if identity is not None and _identity(descriptor) == identity:
        os.close(descriptor)


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return what no other open socket has, whatever its number; None if it is not open."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@functools.cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_in_child)


def _hold_signals() -> None:
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _in_child() -> None:
    for action in list(_actions.values()):
        attempted(action, lambda _: None)  # one that fails must not skip the others
    _actions.clear()
    _release_signals()
