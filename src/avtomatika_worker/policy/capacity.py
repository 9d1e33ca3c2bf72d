"""Limits how many tasks of a skill, or of a type of skills, may run at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """The most concurrent tasks by skill and by type. ``types`` maps each skill to its type."""

    by_skill: Mapping[str, int] = field(default_factory=dict[str, int])
    by_type: Mapping[str, int] = field(default_factory=dict[str, int])
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    counted_as: Mapping[str, str] = field(default_factory=dict[str, str])
    """The skills whose tasks count toward the limit of another one."""

    def __bool__(self) -> bool:
        return bool(self.by_skill or self.by_type)


class Capacity:
    """Counts running tasks against their limits."""

    __slots__ = ("_limits", "_running", "_running_of_type")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running: Counter[str] = Counter()
        self._running_of_type: Counter[str] = Counter()

    def has_room(self, skill: str) -> bool:
        """Whether one more task of ``skill`` may run."""
        limits = self._limits
        counted = limits.counted_as.get(skill, skill)
        if counted in limits.by_skill and self._running[counted] >= limits.by_skill[counted]:
            return False
        kind = limits.types.get(skill, skill)
        return kind not in limits.by_type or self._running_of_type[kind] < limits.by_type[kind]

    def take(self, skill: str) -> None:
        """Count a starting task. Raises RuntimeError if there is no room for it."""
        if not self.has_room(skill):
            raise RuntimeError(f"no room for another task of skill {skill!r}")
        self._running[self._limits.counted_as.get(skill, skill)] += 1
        self._running_of_type[self._limits.types.get(skill, skill)] += 1

    def give_back(self, skill: str) -> None:
        """Count an ended task. Raises RuntimeError if none is running."""
        counted = self._limits.counted_as.get(skill, skill)
        if self._running[counted] < 1:
            raise RuntimeError(f"no task of skill {skill!r} is running")
        self._running[counted] -= 1
        self._running_of_type[self._limits.types.get(skill, skill)] -= 1
