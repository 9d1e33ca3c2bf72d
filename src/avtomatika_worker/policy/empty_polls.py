"""Slows down polling while polls return empty at once, although they asked to be held.

An orchestrator holds a poll until there is a task or the time is up. One that answers "nothing" at once would be polled
thousands of times a second. A task, or a held poll, ends the slowdown: while tasks flow, nothing is paced.
"""

from __future__ import annotations

from typing import Final

HELD: Final = 0.5
"""Seconds after which an empty answer counts as held, or half the requested time if that is shorter."""

FREE: Final = 5
"""Consecutive empty answers that do not slow down polling."""

FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0


class EmptyPolls:
    """The pauses at one orchestrator, in seconds."""

    __slots__ = ("_early",)

    def __init__(self) -> None:
        self._early = 0

    def got_task(self) -> None:
        """There is work: no pause."""
        self._early = 0

    def came_empty(self, after: float, wish: float) -> float:
        """Count an empty answer, ``after`` seconds of the requested ``wish``; return the pause before the next poll."""
        if after >= min(HELD, wish / 2):
            self._early = 0
            return 0.0
        self._early += 1
        doublings = self._early - FREE - 1
        return 0.0 if doublings < 0 else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(doublings, 10))
