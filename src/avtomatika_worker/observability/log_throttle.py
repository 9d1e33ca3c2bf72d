"""Logs a persistent fault at once, and then once a minute with a count: an outage is one page of log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Final

EVERY: Final = 60.0
"""Seconds between lines about the same fault."""


class LogThrottle:
    """The faults of one part, such as a link. May be called from any thread; ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged: dict[Hashable, tuple[float, int]] = {}

    def log(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        *args: Any,
        action: str,
        kind: Hashable = None,
        error: BaseException | None = None,
    ) -> None:
        """Log a fault, identified by ``action`` and ``kind``. If repeated too often, it is logged at DEBUG and counted.

        The traceback of ``error`` is included, except at DEBUG.
        """
        now, key = self._clock(), (action, kind)
        with self._lock:
            logged_at, silent = self._logged.get(key, (now - EVERY, 0))
            quiet = now - logged_at < EVERY
            self._logged[key] = (logged_at, silent + 1) if quiet else (now, 0)
        if quiet:
            level = logging.DEBUG
        elif silent:
            message += " (%d more since the last such line, %.0f s ago)"
            args = (*args, silent, now - logged_at)
        logger.log(level, message, *args, exc_info=None if quiet else error, extra={"action": action})
