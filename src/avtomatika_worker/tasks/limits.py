"""Limits concurrent tasks per skill; a task over a limit waits for its turn. Runs on the main loop.

Tasks of a skill with ``prefetch`` come to one of its places, and ask for leave to compute once their files are here.
Those that have computed are in nobody's way; but while too many of them still store files, no others are asked for.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from bisect import insort
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
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


class Line:
    """The tasks that wait for room under the same limits, those that came first before others."""

    __slots__ = ("_capacity", "_waiting")

    def __init__(self, limits: Limits) -> None:
        self._capacity = Capacity(limits)
        self._waiting: list[Permit] = []

    def has_room(self, skill: str, asked: Sequence[Collection[str]] = ()) -> bool:
        """Whether one more task of ``skill`` may go on, beyond those that may come for what is ``asked``."""
        return self._capacity.has_room(skill, asked)

    def join(self, permit: Permit) -> None:
        """Grant a permit once there is room for it; now, if there is."""
        insort(self._waiting, permit, key=lambda each: each.arrival)
        self._hand_out()

    def leave(self, permit: Permit) -> None:
        """Let others go on in place of a permit that was granted; one that was not waits no longer."""
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


class Permit:
    """One task's leave to go on, held from its grant until `end`, or the end of the ``async with``."""

    __slots__ = ("_ended", "_line", "_waiter", "arrival", "granted", "skill")

    def __init__(self, line: Line, skill: str, arrival: int) -> None:
        """Join ``line``. ``arrival`` is smaller for tasks that came before."""
        self.skill: str = skill
        self.arrival: int = arrival
        self.granted: bool = False
        self._line = line
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        line.join(self)

    def grant(self) -> None:
        """Let it go on."""
        self.granted = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Let others go on, or wait no longer. Called again, it does nothing."""
        if not self._ended:
            self._ended = True
            self._line.leave(self)

    async def __aenter__(self) -> None:
        if self.granted:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:  # cancelled: it may have been granted in the same turn of the loop
            self.end()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.end()


class Admission:
    """What a task holds of its skill's limits, from its arrival until `end`, or the end of the ``async with``."""

    __slots__ = ("_held", "_here", "compute")

    def __init__(
        self, here: Permit, permit: Permit, compute: Callable[[Admission], AbstractAsyncContextManager[None]] | None
    ) -> None:
        """``here`` is held until the end, whatever is passed on meanwhile. ``compute``: see there."""
        self._here = here
        self._held = permit
        self.compute: Callable[[], AbstractAsyncContextManager[None]] | None = None
        """Makes what the task also has to hold while its skill computes; None where that is not asked for."""
        if compute is not None:
            self.compute = partial(compute, self)

    def pass_on(self, permit: Permit) -> None:
        """Hold another permit in place of the one that is held."""
        self._held.end()
        self._held = permit

    def end(self) -> None:
        """Let others go on. Called again, it does nothing."""
        self._held.end()
        self._here.end()

    async def __aenter__(self) -> None:
        await self._held.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        self.end()


class ConcurrencyLimiter:
    """Keeps the limits, first come first served, and asks the user's checker."""

    def __init__(self, limits: Limits, checker: CapacityChecker | None, world: World = REAL) -> None:
        self.on_room: Callable[[], None] = lambda: None
        """Called when a task has made room for another before it ended."""
        self._faults = LogThrottle(world.monotonic)
        self._limits = limits
        self._here = Line(limits.here)
        self._computing = Line(limits)
        self._places = Line(limits.places)
        self._leaving = Line(limits.places)
        self._arrivals = itertools.count()
        self._checker = checker
        self._checker_takes_skill = checker is not None and takes_skill(checker)

    @property
    def asks(self) -> bool:
        """Whether the answers can change without a task beginning or ending."""
        return self._checker is not None

    @property
    def has_limits(self) -> bool:
        """Whether there are any limits but the checker's."""
        return bool(self._limits)

    def available(self, skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for another task."""
        skills = self.beyond((), skills)
        return skills if self._checker is None else tuple(self._checked(self._checker, skills))

    def beyond(self, asked: Sequence[Collection[str]], skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for a task beyond those that may come for what is ``asked``."""
        if not self._limits:
            return skills
        return tuple(each for each in skills if self._has_room(each, asked))

    def _has_room(self, skill: str, asked: Sequence[Collection[str]]) -> bool:
        if not self._here.has_room(skill, asked):
            return False
        if skill not in self._limits.ahead:
            return self._computing.has_room(skill, asked)
        return self._places.has_room(skill, asked) and self._leaving.has_room(skill)

    def request(self, skill: str) -> Admission | None:
        """Return the admission that a task of ``skill`` has to hold while it runs; None when nothing limits it.

        Where there is room, it is granted at once.
        """
        if not self._limits:
            return None
        arrival = next(self._arrivals)
        here = Permit(self._here, skill, arrival)  # without room, that stops nothing but polls
        if skill not in self._limits.ahead:
            return Admission(here, Permit(self._computing, skill, arrival), None)
        return Admission(here, Permit(self._places, skill, arrival), partial(self._compute, skill, arrival))

    @asynccontextmanager
    async def _compute(self, skill: str, arrival: int, admission: Admission) -> AsyncGenerator[None]:
        """Hold the leave to compute; behind it, the task is one of those that leave, and its place another's."""
        async with Permit(self._computing, skill, arrival):
            try:
                yield
            finally:
                admission.pass_on(
                    Permit(self._leaving, skill, arrival)
                )  # if too many leave, that stops nothing but polls
        self.on_room()

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
