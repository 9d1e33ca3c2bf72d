"""Whether an orchestrator answers. Calls come from both loops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from avtomatika_worker.world import REAL

SILENT_AFTER: Final = 3.0
"""Seconds without any answer after which an orchestrator that was asked something is taken for silent."""

_GIVEN: Final = 1.0
"""Seconds that it has for an answer at least."""


class Silence:
    """Notes when an orchestrator was asked something that is answered at once, and when it last answered anything."""

    def __init__(self, clock: Callable[[], float] = REAL.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[object, float] = {}
        self.answered_at: float = clock()

    def asking(self) -> AbstractContextManager[None]:
        """Count as asked meanwhile."""
        return _Asking(self)

    def began(self, question: object) -> None:
        """Take note of a question."""
        with self._lock:
            self._asked[question] = self._clock()

    def ended(self, question: object) -> None:
        """Take note that a question is answered, or given up."""
        with self._lock:
            del self._asked[question]

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

    __slots__ = ("_silence",)

    def __init__(self, silence: Silence) -> None:
        self._silence = silence

    def __enter__(self) -> None:
        self._silence.began(self)

    def __exit__(self, *_: object) -> None:
        self._silence.ended(self)
