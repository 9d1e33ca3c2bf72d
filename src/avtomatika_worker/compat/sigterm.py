"""SIGTERM for a program that runs ``asyncio.run(worker.main())``: the official SDK shuts down then."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def heard_sigterm(ask: Callable[[], None]) -> Generator[None]:
    """Call ``ask`` on SIGTERM within the block, on the running loop; a program that handles it keeps its handler."""
    is_free = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not is_free:
        yield
        return
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGTERM, ask)
    except NotImplementedError:  # Windows
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
