"""How fast something may go: so many a second in the long run, a second's worth of them at once."""

from __future__ import annotations


class TokenBucket:
    """A bucket that ``rate`` tokens a second fall into, and that holds those of one second, or one token at least."""

    __slots__ = ("_capacity", "_rate", "_seen", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._tokens = self._capacity
        self._seen: float | None = None

    def take(self, now: float) -> float:
        """Take one token, and return the seconds after which it is there: 0 when it is already.

        ``now`` is in monotonic seconds. Tokens are taken in advance, so that those who wait do so in order.
        """
        passed = 0.0 if self._seen is None else max(0.0, now - self._seen)
        self._seen = now
        self._tokens = min(self._capacity, self._tokens + passed * self._rate) - 1.0
        return max(0.0, -self._tokens / self._rate)
