"""Whether an orchestrator answers. Calls come from both loops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

SILENT_AFTER: Final = 3.0
"""Seconds without any answer after which an orchestrator that was asked something is taken for silent."""

_GIVEN: Final = 1.0
"""Seconds that it has for an answer at least."""


class Silence:
    """Notes when an orchestrator was asked something that is answered at once, and when it last answered anything."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[_Asking, float] = {}
        self.answered_at: float = clock()

    def asking(self) -> AbstractContextManager[None]:
        """Count as asked meanwhile."""
        return _Asking(self._asked, self._lock, self._clock)

    def answered(self) -> None:
        """Take note of an answer, to whatever it was."""
        with self._lock:
            self.answered_at = self._clock()

    @property
    def lasts(self) -> bool:
        """Whether it has been silent for longer than `SILENT_AFTER`, and has left a call waiting."""
        now = self._clock()
        if now - self.answered_at < SILENT_AFTER:
            return False
        with self._lock:
            return any(now - asked >= _GIVEN for asked in self._asked.values())


class _Asking(AbstractContextManager[None]):
    """One question; a class, and no generator, for every call is one."""

    __slots__ = ("_asked", "_clock", "_lock")

    def __init__(self, asked: dict[_Asking, float], lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._asked = asked
        self._lock = lock
        self._clock = clock

    def __enter__(self) -> None:
        with self._lock:
            self._asked[self] = self._clock()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            del self._asked[self]
