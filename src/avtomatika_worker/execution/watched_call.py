"""What stands around a skill's call may look at it: what goes in besides the params, what comes out as it is."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(slots=True)
class SkillCall:
    """One call of a skill. ``extra`` are further keyword arguments of its function.

    Once it has ``ended``, ``value`` is what it returned, or ``error`` what it raised, or kept it from being called.
    """

    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    value: object = None
    error: BaseException | None = None
    ended: bool = False

    def end(self, value: object = None, error: BaseException | None = None) -> None:
        """Record how it ended."""
        self.value, self.error, self.ended = value, error, True


watched: Final[ContextVar[SkillCall | None]] = ContextVar("watched", default=None)
"""The call that somebody looks at, in the asyncio task that runs the skill's task."""
