"""Handles SIGTERM in programs that run ``asyncio.run(worker.main())``: the official SDK then shuts down."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

_asked: Final[list[Callable[[], None]]] = []
"""What to call on SIGTERM, for all workers on the main thread's loop."""


@contextmanager
def handled_sigterm(ask: Callable[[], None]) -> Generator[None]:
    """Call ``ask`` on SIGTERM within the block, on the running loop; a program's own handler is kept."""
    if threading.current_thread() is not threading.main_thread() or not (_asked or _install()):
        yield
        return
    _asked.append(ask)
    try:
        yield
    finally:
        _asked.remove(ask)
        if not _asked:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def _install() -> bool:
    """Install a handler that calls everything in `_asked`; return whether that was possible."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _ask_all)
    except NotImplementedError:  # Windows
        return False
    return True


def _ask_all() -> None:
    for ask in tuple(_asked):
        ask()
