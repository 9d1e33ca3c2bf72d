"""Limits a rate: so many per second in the long run, and a second's worth in a burst."""

from __future__ import annotations

import math


class TokenBucket:
    """A bucket filled with ``rate`` tokens per second, which holds one second's worth, and at least one token."""

    __slots__ = ("_capacity", "_rate", "_seen", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._tokens = self._capacity
        self._seen = -math.inf

    def take(self, now: float) -> float:
        """Take one token, and return the seconds until it is available: 0 if it already is.

        ``now`` is in monotonic seconds. Tokens are taken in advance, so that waiters are served in order.
        """
        passed = max(0.0, now - self._seen)
        self._seen = now
        self._tokens = min(self._capacity, self._tokens + passed * self._rate) - 1.0
        return max(0.0, -self._tokens / self._rate)
