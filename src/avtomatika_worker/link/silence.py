"""Whether an orchestrator answers. Calls come from both loops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
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
        self._asked: dict[object, float] = {}
        self.answered_at: float = clock()

    @contextmanager
    def asking(self) -> Generator[None]:
        """Count as asked meanwhile."""
        call = object()
        with self._lock:
            self._asked[call] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                del self._asked[call]

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
