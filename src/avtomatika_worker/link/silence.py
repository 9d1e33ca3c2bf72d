"""Whether an orchestrator answers. Calls come from both loops."""

from __future__ import annotations

import itertools
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
        self._numbers = itertools.count()
        self._asked: dict[int, float] = {}
        self.answered_at: float = clock()

    @contextmanager
    def asking(self) -> Generator[None]:
        """Count as asked meanwhile."""
        number = next(self._numbers)
        self._asked[number] = self._clock()
        try:
            yield
        finally:
            del self._asked[number]

    def answered(self) -> None:
        """Take note of an answer, to whatever it was."""
        self.answered_at = self._clock()

    @property
    def lasts(self) -> bool:
        """Whether it has been silent for longer than `SILENT_AFTER`, and has left a call waiting."""
        now = self._clock()
        if now - self.answered_at < SILENT_AFTER:
            return False
        return any(now - asked >= _GIVEN for asked in self._asked.copy().values())
