"""How many polls to have in flight at one orchestrator: as many as the supply of tasks is worth, one when idle.

Each poll costs the orchestrator a held connection and counts against its rate limit, so an idle worker holds one.
A poll that brought a task doubles the number, one that came back empty lowers it by one, and a failure or a rate limit
takes it back to one.
"""

from __future__ import annotations


class AdaptivePollCount:
    """The number of polls that are worth having in flight."""

    __slots__ = ("_most", "target")

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self.target: int = 1

    def got_task(self) -> None:
        """There is work: ask wider."""
        self.target = min(self._most, self.target * 2)

    def came_empty(self) -> None:
        """There is less work than polls."""
        self.target = max(1, self.target - 1)

    def failed(self) -> None:
        """Contact is broken, or the orchestrator asked to slow down."""
        self.target = 1
