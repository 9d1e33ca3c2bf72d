"""Which of several orchestrators is asked next."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Mode(enum.StrEnum):
    """How polls are spread over several orchestrators."""

    WATERFALL = "WATERFALL"
    """By priority: a later one gets the slots that earlier ones leave idle."""

    ROUND_ROBIN = "ROUND_ROBIN"
    """By weight: where all have work, each gets its share of the tasks."""

    FAILOVER = "FAILOVER"
    """By priority: a later one is asked only while all earlier ones are unreachable."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An orchestrator at one moment. ``wants``: another poll there makes sense now."""

    wants: bool
    reachable: bool = True
    in_flight: int = 0


class Rotation:
    """Chooses among the orchestrators, which stand in the order of their priority.

    ROUND_ROBIN is start-time fair queueing: each task moves its orchestrator's clock on by ``1 / weight``, the one
    that is furthest behind is next, and who had no work for a while gets no credit for that.
    """

    def __init__(self, mode: Mode, weights: Sequence[float]) -> None:
        self._mode = mode
        self._weights = tuple(weights)
        self._clocks = [0.0] * len(self._weights)
        self._now = 0.0

    def next(self, candidates: Sequence[Candidate]) -> int | None:
        """Return which one to ask now; None when no other poll makes sense."""
        allowed = list(range(len(candidates)))
        if self._mode is Mode.FAILOVER:
            allowed = [next((i for i in allowed if candidates[i].reachable), 0)]
        wanting = [i for i in allowed if candidates[i].wants]
        if self._mode is Mode.ROUND_ROBIN:
            return min(wanting, key=lambda i: self._tag(i, candidates[i].in_flight), default=None)
        return wanting[0] if wanting else None

    def got_task(self, index: int) -> None:
        """Take note of a task from there."""
        self._now = max(self._clocks[index], self._now)
        self._clocks[index] = self._now + 1 / self._weights[index]

    def _tag(self, index: int, in_flight: int) -> tuple[float, int]:
        return max(self._clocks[index], self._now) + in_flight / self._weights[index], index
