"""Estimates an orchestrator's clock from its responses (RXON.md, "Signing"). May be used from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from avtomatika_worker.world import REAL

_log: Final = logging.getLogger("avtomatika_worker.link")

NOISE: Final = 2.0
"""Seconds by which agreeing clocks may seem to differ: a ``Date`` header has whole seconds and takes time to arrive."""

LIMIT: Final = 30.0
"""Difference in seconds that is worth a warning: half of what orchestrators tolerate."""


class Clock:
    """The clock of the orchestrator at ``url``.

    It is kept relative to ``steady``, so a jump of this machine's clock does not affect it.
    """

    def __init__(
        self, url: str, *, wall: Callable[[], float] = REAL.wall, steady: Callable[[], float] = REAL.steady
    ) -> None:
        """``wall`` is this machine's clock, in Unix seconds."""
        self._url = url
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()
        self._reported = False
        self._ahead = wall() - steady()

    def now(self) -> float:
        """Return the orchestrator's time in Unix seconds."""
        return self._steady() + self._ahead

    @property
    def ahead(self) -> float:
        """How many seconds it is ahead of ``steady``, which is the same in all processes on this machine."""
        return self._ahead

    @property
    def offset(self) -> float:
        """How many seconds it is ahead of this machine's clock; 0 if the difference is within `NOISE`."""
        offset = self.now() - self._wall()
        return offset if abs(offset) > NOISE else 0.0

    def learn(self, date: float, asked: float) -> None:
        """Learn from the ``Date`` header in the response to a call that was sent at ``asked`` (on ``steady``).

        The date was written at some point between then and now: a poll may have been held, or the loop blocked. If the
        current estimate is consistent with that, it is kept. A large difference from this machine's clock is logged
        once, until it is gone.
        """
        earliest, latest = date - self._steady(), date + 1 - asked
        with self._lock:
            if not earliest - NOISE <= self._ahead <= latest + NOISE:
                self._ahead = min(max(self._ahead, earliest), latest)
            offset, reported = self.offset, self._reported
            differs = self._reported = abs(offset) > LIMIT
        if differs and not reported:
            _log.warning(
                "this machine's clock is %.0f s %s that of %s; messages use the latter's time (is NTP running?)",
                abs(offset),
                "behind" if offset > 0 else "ahead of",
                self._url,
                extra={"action": "clock_differs"},
            )
