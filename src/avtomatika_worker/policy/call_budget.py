"""How many calls of one kind an orchestrator takes, and how dense those may be that can be combined.

Observed on 1.0b21 and 1.0b30, in memory and on Redis: calls of a kind are counted, *every* call restarts the window,
refused or not, and only a full window without any call sets the count back to nothing. So ``calls`` is what there is
until the next silence, however slowly they are made; it is no rate. Orchestrators that count otherwise take more.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

SHARE: Final = 0.95
"""Of the calls, what is used: an answer can be lost after the call was counted."""

RESERVE: Final = 0.1
"""Of the calls, what is left to events that cannot be combined, and to the last chunk of streams yet to come."""

HORIZON: Final = 1 / 2
"""Silences for which the rest of the budget would last at the pace of now: a stream begins dense and thins out."""

MARGIN: Final = 1.0
"""Seconds by which a silence is longer than the orchestrator's window."""

LEAST: Final = 5.0
"""Calls that are assumed at least."""


class CallLimit(msgspec.Struct, frozen=True):
    """``calls`` of a kind until there was none for ``silence`` seconds."""

    calls: float
    silence: float = 60.0 + MARGIN


DEFAULT_CALLS: Final = 100.0
"""What released orchestrators allow when nobody says otherwise (RXON.md, "Transport")."""

UNLIMITED: Final = CallLimit(math.inf)


class CallBudget:
    """What is left of an orchestrator's limit for one kind of calls. Times are in monotonic seconds.

    A ``limit`` that is only assumed holds back what can be combined, and nothing else; once it is ``known``, because
    somebody has configured it or because a call was refused, the other calls wait for a silence, too, when it is used
    up: a refused call would only make that longer. Calls that are taken beyond an assumed limit raise it.
    """

    def __init__(self, limit: CallLimit, *, known: bool = False) -> None:
        self.calls: float = limit.calls
        self.known: bool = known
        self.used: int = 0
        self._silence = limit.silence
        self._configured = known
        self._believed = limit.calls
        self._doubted: int | None = None
        self._fresh_at = -math.inf
        """When the count is back at nothing, if no call goes out until then."""

    def spend(self, now: float) -> None:
        """Count a call that goes out now."""
        self._look(now)
        self.used += 1
        self._fresh_at = now + self._silence

    def taken(self) -> None:
        """Take note that a call was not refused for its number."""
        if self.used > self.calls and not self.known:
            self.calls = self._believed = self.calls * 2

    def refused(self, now: float, wait: float | None = None) -> None:
        """Learn from a call that was refused: how many were taken, unless others must have been counted, too.

        A former run of this worker, or its neighbors, may have used most of it: what is less than half of what was
        believed counts from the second time on. Who names the seconds to ``wait`` (released orchestrators never do)
        counts in another way, of which nothing can be learned; waiting for so long is enough.
        """
        if wait is not None:
            self._fresh_at = now + wait
            return
        taken = self.used - 1
        if not self._configured:
            if taken < self.calls / 2 and self._doubted is None:
                self._doubted, self.calls = taken, max(LEAST, self.calls / 2)
            else:
                self.calls = self._believed = max(LEAST, min(self.calls, max(taken, self._doubted or 0)))
            self.known = True
        self.used = max(self.used, math.ceil(self.calls) if math.isfinite(self.calls) else 0)
        self._fresh_at = now + self._silence

    def must_wait(self, now: float) -> float:
        """Return the seconds before a call that cannot be combined with others may go; 0 for none."""
        self._look(now)
        if not self.known or self.used < self.calls * SHARE:
            return 0.0
        return self._fresh_at - now

    def interval(self, now: float, streams: int) -> float:
        """Return the seconds between two calls of each of so many ``streams`` that combine what they send.

        Infinite when nothing is left for them before a silence.
        """
        self._look(now)
        if math.isinf(self.calls):
            return 0.0
        left = self.calls * (SHARE - RESERVE) - streams - self.used
        if left < 1.0:
            return math.inf
        return min(max(1, streams) * HORIZON / left, 1.0) * self._silence

    def _look(self, now: float) -> None:
        if self.used and now >= self._fresh_at:
            self.used = 0
            self.calls = self._believed
