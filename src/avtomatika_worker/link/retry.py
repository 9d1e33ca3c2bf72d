"""Evaluates failed calls: how long to wait before the next attempt, and which failures are the same problem."""

from __future__ import annotations

from collections.abc import Hashable

from avtomatika_worker.errors import RejectedError, TransportError, WorkerError
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.world import World


def delay_after(backoff: Backoff, error: WorkerError, world: World) -> float:
    """Record a failure and return the seconds to wait before the next attempt."""
    chance = world.random.random()
    if not isinstance(error, TransportError):
        return backoff.failed(chance)
    limited = isinstance(error, RejectedError) and error.rate_limited
    return backoff.failed(chance, retry_after=error.retry_after, rate_limited=limited)


def kind_of(error: WorkerError) -> Hashable:
    """Return what identifies a problem in the log: the error's type and status, not its text."""
    return type(error), getattr(error, "status", None)
