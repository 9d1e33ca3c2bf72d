"""How many connections without a route's key the proxy in front of stores keeps: any user can open them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MOST_STRANGERS: Final = 128
"""Connections that had `SHOWN_WITHIN` to show a key."""

SHOWN_WITHIN: Final = 2.0
"""Seconds. The worker's own connections show their keys at once, and may be many at once."""

_MOST_NEW: Final = 512
"""Connections without a key, however new: half of the files that a process may usually have open."""


def surplus(ages: Sequence[float]) -> int:
    """Return how many connections have to make room, of those made so many seconds ago, the oldest first."""
    old = sum(age >= SHOWN_WITHIN for age in ages)
    return max(0, min(len(ages) - MOST_STRANGERS, old), len(ages) - _MOST_NEW)
