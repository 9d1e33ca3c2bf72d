"""An orchestrator's clock, as its answers tell it (RXON.md, "Signing"). May be asked from any thread."""

from __future__ import annotations

import logging
import time
from typing import Final

_log: Final = logging.getLogger("avtomatika_worker.link")

NOISE: Final = 2.0
"""Seconds by which two clocks that agree may seem to differ: a ``Date`` header has whole seconds, and travels."""

LIMIT: Final = 30.0
"""Seconds of difference that a person should know of: half of what orchestrators bear."""


class Clock:
    """The clock of the orchestrator at ``url``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._told = False
        self.offset: float = 0.0
        """How many seconds it is ahead of this machine's; 0 for less than `NOISE`."""

    def now(self) -> float:
        """Return its time in Unix seconds."""
        return time.time() + self.offset

    def learn(self, date: float) -> None:
        """Take note of a ``Date`` header; a large difference is told once, until it has gone."""
        offset = date + 0.5 - time.time()
        self.offset = offset if abs(offset) > NOISE else 0.0
        if abs(offset) <= LIMIT:
            self._told = False
        elif not self._told:
            self._told = True
            _log.warning(
                "this machine's clock is %.0f s %s that of %s; messages are stamped with its time (is NTP running?)",
                abs(offset),
                "behind" if offset > 0 else "ahead of",
                self._url,
                extra={"action": "clock_differs"},
            )
