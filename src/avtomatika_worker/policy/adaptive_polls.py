"""How many polls to keep in flight at one orchestrator: as many as the task supply justifies, one when idle.

Each poll costs the orchestrator a held connection and counts against its rate limit, so an idle worker holds one.
A poll that brings a task doubles the number, an empty one lowers it by one, and a failure or a rate limit resets it to
one.
"""

from __future__ import annotations


class AdaptivePollCount:
    """The number of polls worth keeping in flight."""

    __slots__ = ("_most", "target")

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self.target: int = 1

    def got_task(self) -> None:
        """There is work: increase the number."""
        self.target = min(self._most, self.target * 2)

    def came_empty(self) -> None:
        """There is less work than polls: lower the number."""
        self.target = max(1, self.target - 1)

    def failed(self) -> None:
        """Contact is lost, or the orchestrator asked to slow down: reset the number."""
        self.target = 1
