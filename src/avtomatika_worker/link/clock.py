"""An orchestrator's clock, read from its answers (RXON.md, "Signing"), and ours. May be used from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from avtomatika_worker.world import REAL

_log: Final = logging.getLogger("avtomatika_worker.link")

NOISE: Final = 2.0
"""Seconds by which two clocks that agree may seem to differ: a ``Date`` header has whole seconds, and travels."""

LIMIT: Final = 30.0
"""Seconds of difference that a person should know of: half of what orchestrators bear."""


class Clock:
    """The clock of the orchestrator at ``url``.

    It is kept relative to ``steady``, so that a jump of this machine's clock does not move it.
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
        """Return its time in Unix seconds."""
        return self._steady() + self._ahead

    @property
    def ahead(self) -> float:
        """How many seconds it is ahead of ``steady``, which is the same in all processes of this machine."""
        return self._ahead

    @property
    def offset(self) -> float:
        """How many seconds it is ahead of this machine's clock; 0 for less than `NOISE`."""
        offset = self.now() - self._wall()
        return offset if abs(offset) > NOISE else 0.0

    def learn(self, date: float, asked: float) -> None:
        """Take note of a ``Date`` header in the answer to a call that was sent at ``asked`` (of ``steady``).

        The date was written at some time between then and now: a poll may have been held, and the loop blocked. What
        is possible changes nothing. A large difference to this machine's clock is reported once, until it has gone.
        """
        earliest, latest = date - self._steady(), date + 1 - asked
        with self._lock:
            if not earliest - NOISE <= self._ahead <= latest + NOISE:
                self._ahead = min(max(self._ahead, earliest), latest)
            offset, reported = self.offset, self._reported
            differs = self._reported = abs(offset) > LIMIT
        if differs and not reported:
            _log.warning(
                "this machine's clock is %.0f s %s that of %s; messages are stamped with its time (is NTP running?)",
                abs(offset),
                "behind" if offset > 0 else "ahead of",
                self._url,
                extra={"action": "clock_differs"},
            )
