"""Limits how many tasks of a skill, or of a type of skills, may run at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from avtomatika_worker.policy.device_shares import fits


@dataclass(frozen=True, slots=True)
class Limits:
    """The most concurrent tasks by skill and by type. ``types`` maps each skill to its type.

    ``ahead``: how many more tasks of a skill than may run may be here.
    ``others`` is how many there may be of skills that are not ``batched``, together. ``gpus``: how many devices a task
    of a skill takes, or which share of one; ``devices`` says of each whether it can be combined with others.
    """

    by_skill: Mapping[str, int] = field(default_factory=dict[str, int])
    by_type: Mapping[str, int] = field(default_factory=dict[str, int])
    types: Mapping[str, str] = field(default_factory=dict[str, str])
    ahead: Mapping[str, int] = field(default_factory=dict[str, int])
    counted_as: Mapping[str, str] = field(default_factory=dict[str, str])
    """The skills whose tasks count toward the limit of another one."""
    batched: frozenset[str] = frozenset()
    others: int | None = None
    gpus: Mapping[str, float] = field(default_factory=dict[str, float])
    devices: tuple[bool, ...] = ()

    @property
    def places(self) -> Limits:
        """The most tasks that may be here, of the skills some of whose tasks are here before they may run."""
        return Limits(
            {skill: self._most(skill) + ahead for skill, ahead in self.ahead.items()}, counted_as=self.counted_as
        )

    @property
    def here(self) -> Limits:
        """The most tasks that may be here, whether they run or not: those of batched skills have slots of their own."""
        return Limits(batched=self.batched, others=self.others)

    def _most(self, skill: str) -> int:
        kind = self.types.get(skill, skill)
        bounds = [self.by_skill[skill]] if skill in self.by_skill else []
        return min([*bounds, self.by_type[kind]] if kind in self.by_type else bounds, default=1)

    def __bool__(self) -> bool:
        return bool(self.by_skill or self.by_type or self.gpus or self.others is not None)


class Capacity:
    """Counts running tasks against their limits."""

    __slots__ = ("_limits", "_others", "_running", "_running_of_type")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._others = 0
        self._running: Counter[str] = Counter()
        self._running_of_type: Counter[str] = Counter()

    def has_room(self, skill: str, asked: Sequence[Collection[str]] = ()) -> bool:
        """Whether one more task of ``skill`` may run.

        ``asked``: the skills of each request that is not answered yet, and may bring a task of one of them.
        """
        return self._is_within_limits(skill, asked) and self._has_devices(skill, asked)

    def uses_devices(self, skill: str) -> bool:
        """Whether its tasks take devices."""
        return skill in self._limits.gpus

    def lacks_devices(self, skill: str) -> bool:
        """Whether one more task of ``skill`` might run if there were devices for it."""
        return self.uses_devices(skill) and self._is_within_limits(skill, ()) and not self._has_devices(skill, ())

    def _is_within_limits(self, skill: str, asked: Sequence[Collection[str]]) -> bool:
        limits = self._limits
        counted = limits.counted_as.get(skill, skill)
        if counted in limits.by_skill:
            coming = sum(any(limits.counted_as.get(each, each) == counted for each in skills) for skills in asked)
            if self._running[counted] + coming >= limits.by_skill[counted]:
                return False
        if limits.others is not None and skill not in limits.batched:
            coming = sum(any(each not in limits.batched for each in skills) for skills in asked)
            if self._others + coming >= limits.others:
                return False
        kind = limits.types.get(skill, skill)
        if kind not in limits.by_type:
            return True
        coming = sum(any(limits.types.get(each, each) == kind for each in skills) for skills in asked)
        return self._running_of_type[kind] + coming < limits.by_type[kind]

    def _has_devices(self, skill: str, asked: Sequence[Collection[str]]) -> bool:
        """Whether there is room on the devices besides what runs, and the most that may come for each request."""
        limits = self._limits
        if (gpus := limits.gpus.get(skill)) is None:
            return True
        wanted = [limits.gpus[skill] for skill in self._running.elements() if skill in limits.gpus]
        coming = [max((limits.gpus.get(each, 0.0) for each in skills), default=0.0) for skills in asked]
        return fits([gpus, *wanted, *filter(None, coming)], limits.devices)

    def take(self, skill: str) -> None:
        """Count a starting task. Raises RuntimeError if there is no room for it."""
        if not self.has_room(skill):
            raise RuntimeError(f"no room for another task of skill {skill!r}")
        self._running[self._limits.counted_as.get(skill, skill)] += 1
        self._others += skill not in self._limits.batched
        self._running_of_type[self._limits.types.get(skill, skill)] += 1

    def give_back(self, skill: str) -> None:
        """Count an ended task. Raises RuntimeError if none is running."""
        counted = self._limits.counted_as.get(skill, skill)
        if self._running[counted] < 1:
            raise RuntimeError(f"no task of skill {skill!r} is running")
        self._running[counted] -= 1
        self._others -= skill not in self._limits.batched
        self._running_of_type[self._limits.types.get(skill, skill)] -= 1
