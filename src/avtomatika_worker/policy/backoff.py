"""How long to wait before the next attempt: one policy for every call."""

from __future__ import annotations

from typing import Final

import msgspec

LONGEST_WAIT: Final = 300.0
"""The longest requested wait that is honored, in seconds. A longer one would silence the worker."""

_MAX_DOUBLINGS: Final = 60  # the ceiling is reached long before this; keeps 2**n small


class BackoffPolicy(msgspec.Struct, frozen=True):
    """Exponential backoff with full jitter. Times are in seconds.

    ``initial`` is the ceiling of the first delay; the ceiling doubles up to ``maximum``. ``rate_limit_floor`` is the
    least wait after a 429 that does not say how long to wait: with the memory storage of 1.0b21 and 1.0b30, which send
    no such time, every refused call restarts the 60 s window (observed), so that only silence helps.
    """

    initial: float = 1.0
    maximum: float = 60.0
    rate_limit_floor: float = 61.0

    def ceiling(self, attempt: int) -> float:
        """Return the ceiling of the delay after failed attempt number ``attempt`` (1 is the first)."""
        return min(self.maximum, self.initial * 2.0 ** min(max(attempt, 1) - 1, _MAX_DOUBLINGS))

    def delay(
        self, attempt: int, jitter: float, *, retry_after: float | None = None, rate_limited: bool = False
    ) -> float:
        """Return the delay after failed attempt ``attempt``; ``jitter`` is a random number in [0, 1).

        The requested wait (``retry_after``) is a floor, spread by at most a quarter of the ceiling so that clients with
        the same wait do not all return at once. A wait above `LONGEST_WAIT` is ignored.
        """
        ceiling = self.ceiling(attempt)
        if retry_after is not None and retry_after <= LONGEST_WAIT:
            return retry_after + jitter * ceiling / 4
        if rate_limited:
            return self.rate_limit_floor + jitter * ceiling / 4
        return jitter * ceiling


class Backoff:
    """Counts consecutive failures and applies the policy."""

    __slots__ = ("attempts", "policy")

    def __init__(self, policy: BackoffPolicy) -> None:
        self.policy: BackoffPolicy = policy
        self.attempts: int = 0

    def failed(self, jitter: float, *, retry_after: float | None = None, rate_limited: bool = False) -> float:
        """Count a failure and return the delay before the next attempt, in seconds."""
        self.attempts += 1
        return self.policy.delay(self.attempts, jitter, retry_after=retry_after, rate_limited=rate_limited)

    def succeeded(self) -> None:
        """Forget the failures."""
        self.attempts = 0
