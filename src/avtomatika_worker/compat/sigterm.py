"""SIGTERM for a program that runs ``asyncio.run(worker.main())``: the official SDK shuts down then."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

_asked: Final[list[Callable[[], None]]] = []
"""What is called on SIGTERM: of all workers that run side by side on the main thread's loop."""


@contextmanager
def heard_sigterm(ask: Callable[[], None]) -> Generator[None]:
    """Call ``ask`` on SIGTERM within the block, on the running loop; a program that handles it keeps its handler."""
    if threading.current_thread() is not threading.main_thread() or not (_asked or _hear()):
        yield
        return
    _asked.append(ask)
    try:
        yield
    finally:
        _asked.remove(ask)
        if not _asked:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def _hear() -> bool:
    """Call everything in `_asked` on SIGTERM from now on; return whether it does."""
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
