"""Tracks whether an orchestrator answers. Used from both loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from avtomatika_worker.world import REAL

SILENT_AFTER: Final = 3.0
"""Seconds without any response after which an orchestrator with an open call counts as silent."""

_GIVEN: Final = 1.0
"""Minimum seconds that it has to respond."""


class Silence:
    """Tracks open calls that should be answered at once, and when the last response arrived."""

    def __init__(self, clock: Callable[[], float] = REAL.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[object, float] = {}
        self.answered_at: float = clock()

    def began(self) -> object:
        """Record that a call has begun; return a token for `ended`."""
        question = object()
        with self._lock:
            self._asked[question] = self._clock()
        return question

    def ended(self, question: object) -> None:
        """Record that a call was answered or abandoned."""
        with self._lock:
            del self._asked[question]

    def answered(self) -> None:
        """Record a response to any call."""
        with self._lock:
            self.answered_at = self._clock()

    @property
    def lasts(self) -> bool:
        """Whether it has been silent for longer than `SILENT_AFTER` while a call was open."""
        now = self._clock()
        if now - self.answered_at < SILENT_AFTER:
            return False
        with self._lock:
            return any(now - asked >= _GIVEN for asked in self._asked.values())
