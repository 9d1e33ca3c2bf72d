"""Lets the code around a skill's call observe it: pass extra arguments in, and see the raw return value."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(slots=True)
class SkillCall:
    """One call of a skill. ``extra`` are additional keyword arguments for its function.

    Once it has ``ended``, ``value`` is what it returned, or ``error`` what it raised or what prevented the call.
    """

    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    value: object = None
    error: BaseException | None = None
    ended: bool = False

    def end(self, value: object = None, error: BaseException | None = None) -> None:
        """Record how the call ended."""
        self.value, self.error, self.ended = value, error, True


watched: Final[ContextVar[SkillCall | None]] = ContextVar("watched", default=None)
"""The call being observed, in the asyncio task that runs the skill's task."""
