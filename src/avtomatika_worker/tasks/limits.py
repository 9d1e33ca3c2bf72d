"""Limits concurrent tasks per skill; a task over a limit waits for its turn. Runs on the main loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.observability.log_throttle import LogThrottle
from avtomatika_worker.policy.capacity import Capacity, Limits
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.capacity")

CapacityChecker = Callable[..., bool]
"""``checker(skill) -> bool``, or without an argument for all skills: whether one more task could start now."""


def takes_skill(checker: CapacityChecker) -> bool:
    """Whether a checker is called with the skill's name. Raises TypeError if it can be called neither way.

    Raises ValueError for one whose arguments cannot be read, as those of some functions written in C.
    """
    signature = inspect.signature(checker)
    try:
        signature.bind("skill")
    except TypeError:
        signature.bind()
        return False
    return True


class Permit:
    """Permission to run a task under a limit: held from its grant until `end`, or the end of the ``async with``."""

    __slots__ = ("_end", "_ended", "_waiter", "granted", "skill")

    def __init__(self, skill: str, end: Callable[[Permit], None]) -> None:
        self.skill: str = skill
        self.granted: bool = False
        self._end = end
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def grant(self) -> None:
        """Let it run."""
        self.granted = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Let others run, or wait no longer. Called again, it does nothing."""
        if not self._ended:
            self._ended = True
            self._end(self)

    async def __aenter__(self) -> None:
        if not self.granted:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def __aexit__(self, *_: object) -> None:
        self.end()


class ConcurrencyLimiter:
    """Keeps the limits, first come first served, and asks the user's checker."""

    def __init__(self, limits: Limits, checker: CapacityChecker | None, world: World = REAL) -> None:
        self._faults = LogThrottle(world.monotonic)
        self._limits = limits
        self._capacity = Capacity(limits)
        self._waiting: list[Permit] = []
        self._checker = checker
        self._checker_takes_skill = checker is not None and takes_skill(checker)

    @property
    def asks(self) -> bool:
        """Whether the answers can change without a task beginning or ending."""
        return self._checker is not None

    def available(self, skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for another task."""
        if self._limits:
            skills = tuple(filter(self._capacity.has_room, skills))
        return skills if self._checker is None else tuple(self._checked(self._checker, skills))

    def request(self, skill: str) -> Permit | None:
        """Return the permit that a task of ``skill`` has to hold while it runs; None when nothing limits it.

        Where there is room, it is granted at once.
        """
        if not self._limits:
            return None
        permit = Permit(skill, self._give_back)
        self._waiting.append(permit)
        self._hand_out()
        return permit

    def _give_back(self, permit: Permit) -> None:
        if permit.granted:
            self._capacity.give_back(permit.skill)
            self._hand_out()
        else:
            self._waiting.remove(permit)

    def _hand_out(self) -> None:
        for permit in [each for each in self._waiting if self._capacity.has_room(each.skill)]:
            if self._capacity.has_room(permit.skill):
                self._capacity.take(permit.skill)
                self._waiting.remove(permit)
                permit.grant()

    def _checked(self, checker: CapacityChecker, skills: tuple[str, ...]) -> Iterable[str]:
        if self._checker_takes_skill:
            return [skill for skill in skills if self._ask(checker, skill)]
        return skills if self._ask(checker) else ()

    def _ask(self, checker: CapacityChecker, *args: Any) -> bool:
        return attempted(lambda: bool(checker(*args)), self._as_having_capacity)  # the user's: it stops no tasks

    def _as_having_capacity(self, error: Exception) -> bool:
        text = "the capacity checker failed; counted as having capacity"
        self._faults.log(_log, logging.ERROR, text, action="checker_failed", error=error)
        return True
