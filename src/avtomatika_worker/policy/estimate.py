"""Estimates how long a task still takes."""

from __future__ import annotations


def seconds_left(elapsed: float, *, progress: float, reported_at: float | None, expected: float | None) -> float | None:
    """Return the seconds that a task still takes, as far as that can be known; None when it cannot.

    ``elapsed`` is how long it has run. Its last ``progress`` (0 to 1) came ``reported_at`` seconds after its start:
    work is taken to go on at the pace that it had until then. Without progress, what its skill is ``expected`` to take
    counts. A task that is late has 0 seconds left.
    """
    if progress >= 1:
        return 0.0
    if progress > 0 and reported_at is not None and reported_at > 0:
        return max(0.0, reported_at / progress - elapsed)
    return None if expected is None else max(0.0, expected - elapsed)
