"""Limits concurrent tasks per skill; a task over a limit waits for its turn. Runs on the main loop.

A task of a skill with ``prefetch`` takes one of its places, and requests permission to compute once its files are here.
A task that has computed blocks no other; but while too many such tasks are still storing files, none are polled for.
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
"""``checker(skill) -> bool``, or without an argument for all skills: whether another task could start now."""


def takes_skill(checker: CapacityChecker) -> bool:
    """Whether a checker is called with the skill's name. Raises TypeError if it can be called neither way.

    Raises ValueError if its signature is not available, as with some functions written in C.
    """
    signature = inspect.signature(checker)
    try:
        signature.bind("skill")
    except TypeError:
        signature.bind()
        return False
    return True


class Line:
    """The tasks that are waiting for room under the same limits, in order of arrival.

    One that needs a whole device would wait as long as others with a part of one came: behind it, nobody gets any.
    """

    __slots__ = ("_capacity", "_waiting")

    def __init__(self, limits: Limits) -> None:
        self._capacity = Capacity(limits)
        self._waiting: list[Permit] = []

    def has_room(self, skill: str, asked: Sequence[Collection[str]] = ()) -> bool:
        """Whether another task of ``skill`` may proceed, on top of those that polls have ``asked`` for."""
        capacity = self._capacity
        if capacity.uses_devices(skill) and any(capacity.lacks_devices(each.skill) for each in self._waiting):
            return False
        return capacity.has_room(skill, asked)

    def join(self, permit: Permit) -> None:
        """Grant a permit once there is room for it, possibly at once."""
        insort(self._waiting, permit, key=lambda each: each.arrival)
        self._hand_out()

    def leave(self, permit: Permit) -> None:
        """Release a granted permit for others, or stop waiting for one that was not granted."""
        if permit.granted:
            self._capacity.give_back(permit.skill)
        else:
            self._waiting.remove(permit)
        self._hand_out()

    def _hand_out(self) -> None:
        capacity, blocked = self._capacity, False
        for permit in [*self._waiting]:
            if blocked and capacity.uses_devices(permit.skill):
                continue
            if capacity.has_room(permit.skill):
                capacity.take(permit.skill)
                self._waiting.remove(permit)
                permit.grant()
            else:
                blocked = blocked or capacity.lacks_devices(permit.skill)


class Permit:
    """One task's permission to proceed, held from its grant until `end` or the end of the ``async with``."""

    __slots__ = ("_ended", "_line", "_waiter", "arrival", "granted", "skill")

    def __init__(self, line: Line, skill: str, arrival: int) -> None:
        """Join ``line``. ``arrival`` is smaller for tasks that arrived earlier."""
        self.skill: str = skill
        self.arrival: int = arrival
        self.granted: bool = False
        self._line = line
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        line.join(self)

    def grant(self) -> None:
        """Let the task proceed."""
        self.granted = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Release the permit, or stop waiting for it. Further calls do nothing."""
        if not self._ended:
            self._ended = True
            self._line.leave(self)

    async def __aenter__(self) -> None:
        if self.granted:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:  # cancelled: it may have been granted in the same loop iteration
            self.end()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.end()


class Admission:
    """A task's share of its skill's limits, held from its arrival until `end` or the end of the ``async with``."""

    __slots__ = ("_held", "_here", "compute")

    def __init__(
        self, here: Permit, permit: Permit, compute: Callable[[Admission], AbstractAsyncContextManager[None]] | None
    ) -> None:
        """``here`` is held until the end, whatever replaces ``permit`` meanwhile. ``compute``: see the attribute."""
        self._here = here
        self._held = permit
        self.compute: Callable[[], AbstractAsyncContextManager[None]] | None = None
        """Makes what the task must also hold while its skill computes; None if nothing."""
        if compute is not None:
            self.compute = partial(compute, self)

    def pass_on(self, permit: Permit) -> None:
        """Replace the held permit by another."""
        self._held.end()
        self._held = permit

    def end(self) -> None:
        """Release everything. Further calls do nothing."""
        self._held.end()
        self._here.end()

    async def __aenter__(self) -> None:
        await self._held.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        self.end()


class ConcurrencyLimiter:
    """Enforces the limits, first come, first served, and calls the user's checker."""

    def __init__(self, limits: Limits, checker: CapacityChecker | None, world: World = REAL) -> None:
        self.on_room: Callable[[], None] = lambda: None
        """Called when a task makes room for another before it ends."""
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
        """Whether the answers can change without a task starting or ending."""
        return self._checker is not None

    @property
    def has_limits(self) -> bool:
        """Whether there are any limits besides the checker."""
        return bool(self._limits)

    def available(self, skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for another task."""
        skills = self.beyond((), skills)
        return skills if self._checker is None else tuple(self._checked(self._checker, skills))

    def beyond(self, asked: Sequence[Collection[str]], skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for a task on top of those that polls have ``asked`` for."""
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
        """Return the admission that a task of ``skill`` must hold while it runs; None if nothing limits it.

        If there is room, it is granted at once.
        """
        if not self._limits:
            return None
        arrival = next(self._arrivals)
        here = Permit(self._here, skill, arrival)  # if there is no room, this stops only polls
        if skill not in self._limits.ahead:
            return Admission(here, Permit(self._computing, skill, arrival), None)
        return Admission(here, Permit(self._places, skill, arrival), partial(self._compute, skill, arrival))

    @asynccontextmanager
    async def _compute(self, skill: str, arrival: int, admission: Admission) -> AsyncGenerator[None]:
        """Hold the permission to compute; after that, the task counts as leaving, and its place is free."""
        async with Permit(self._computing, skill, arrival):
            try:
                yield
            finally:
                admission.pass_on(
                    Permit(self._leaving, skill, arrival)
                )  # if too many are leaving, this stops only polls
        self.on_room()

    def _checked(self, checker: CapacityChecker, skills: tuple[str, ...]) -> Iterable[str]:
        if self._checker_takes_skill:
            return [skill for skill in skills if self._ask(checker, skill)]
        return skills if self._ask(checker) else ()

    def _ask(self, checker: CapacityChecker, *args: Any) -> bool:
        return attempted(lambda: bool(checker(*args)), self._as_having_capacity)  # an error in user code stops no tasks

    def _as_having_capacity(self, error: Exception) -> bool:
        text = "the capacity checker failed; assuming that there is capacity"
        self._faults.log(_log, logging.ERROR, text, action="checker_failed", error=error)
        return True
