"""Decides which of several orchestrators is polled next."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec


class Mode(enum.StrEnum):
    """How polls are distributed over several orchestrators."""

    WATERFALL = "WATERFALL"
    """By priority: a later one gets the slots left idle by earlier ones."""

    ROUND_ROBIN = "ROUND_ROBIN"
    """By weight: if all have work, each gets its share of the tasks."""

    FAILOVER = "FAILOVER"
    """By priority: a later one is polled only while all earlier ones are unreachable."""


class Candidate(msgspec.Struct, frozen=True):
    """An orchestrator at one moment. ``wants``: another poll there makes sense now."""

    wants: bool
    reachable: bool = True
    in_flight: int = 0


class Rotation:
    """Chooses among the orchestrators, listed in the order of priority.

    ROUND_ROBIN is start-time fair queueing: each task advances its orchestrator's clock by ``1 / weight``, the one
    furthest behind is next, and one without work for a while gets no credit for that.
    """

    def __init__(self, mode: Mode, weights: Sequence[float]) -> None:
        self._mode = mode
        self._weights = tuple(weights)
        self._clocks = [0.0] * len(self._weights)
        self._now = 0.0

    def next(self, candidates: Sequence[Candidate]) -> int | None:
        """Return the one to poll now, or None if no further poll makes sense."""
        allowed = list(range(len(candidates)))
        if self._mode is Mode.FAILOVER:
            allowed = [next((i for i in allowed if candidates[i].reachable), 0)]
        wanting = [i for i in allowed if candidates[i].wants]
        if self._mode is Mode.ROUND_ROBIN:
            return min(wanting, key=lambda i: self._tag(i, candidates[i].in_flight), default=None)
        return wanting[0] if wanting else None

    def got_task(self, index: int) -> None:
        """Record a task from this orchestrator."""
        self._now = max(self._clocks[index], self._now)
        self._clocks[index] = self._now + 1 / self._weights[index]

    def _tag(self, index: int, in_flight: int) -> tuple[float, int]:
        return max(self._clocks[index], self._now) + in_flight / self._weights[index], index
