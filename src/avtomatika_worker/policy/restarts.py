"""Decides when a worker process that ended by itself is restarted."""

from __future__ import annotations

from typing import Final

from avtomatika_worker.policy.backoff import Backoff, BackoffPolicy

STABLE_AFTER: Final = 60.0
"""Seconds a process must have run for the earlier ends to be forgotten."""

RESTARTS: Final = BackoffPolicy(initial=1.0, maximum=60.0)
"""The wait before a restart: random, below a ceiling that doubles with every end."""


class Restarts:
    """The consecutive ends of one process."""

    __slots__ = ("_backoff",)

    def __init__(self, policy: BackoffPolicy = RESTARTS) -> None:
        self._backoff = Backoff(policy)

    @property
    def in_a_row(self) -> int:
        """How often it has ended since its last long run."""
        return self._backoff.attempts

    def ended(self, ran_for: float, jitter: float) -> float:
        """Count an end and return the delay before the restart, in seconds; ``jitter`` is random, in [0, 1)."""
        if ran_for >= STABLE_AFTER:
            self._backoff.succeeded()
        return self._backoff.failed(jitter)

    def forget(self) -> None:
        """Reset the count."""
        self._backoff.succeeded()
