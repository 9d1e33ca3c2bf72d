"""Which skills have room for another task; a task over a limit waits for its turn. Runs on the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, Final

from avtomatika_worker.policy.capacity import Capacity, Limits

_log: Final = logging.getLogger("avtomatika_worker.capacity")

CapacityChecker = Callable[..., bool]
"""``checker(skill) -> bool``, or without an argument for all skills: whether one more task could start now."""

_COMPLAIN_EVERY: Final = 60.0
"""Seconds between two error lines about a checker that raises."""


class Admission:
    """Keeps the limits, first come first served, and asks the user's checker."""

    def __init__(self, limits: Limits, checker: CapacityChecker | None) -> None:
        self._limits = limits
        self._capacity = Capacity(limits)
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._checker = checker
        self._checker_takes_skill = checker is not None and bool(inspect.signature(checker).parameters)
        self._complained = -_COMPLAIN_EVERY

    @property
    def asks(self) -> bool:
        """Whether the answers can change without a task beginning or ending."""
        return self._checker is not None

    def available(self, skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for another task."""
        if self._limits:
            skills = tuple(filter(self._capacity.has_room, skills))
        return skills if self._checker is None else tuple(self._checked(self._checker, skills))

    def turn(self, skill: str) -> contextlib.AbstractAsyncContextManager[None] | None:
        """Return what a task of ``skill`` has to hold while it runs; None when nothing limits it."""
        return self._turn(skill) if self._limits else None

    @contextlib.asynccontextmanager
    async def _turn(self, skill: str) -> AsyncGenerator[None]:
        if self._capacity.has_room(skill):
            self._capacity.take(skill)
        else:
            await self._wait(skill)
        try:
            yield
        finally:
            self._capacity.give_back(skill)
            self._wake()

    async def _wait(self, skill: str) -> None:
        _log.debug("a task of skill %s waits: as many as may run are running", skill)
        entry = (skill, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry[1].done() and not entry[1].cancelled():  # woken and cancelled at once: the turn goes on
                self._capacity.give_back(skill)
                self._wake()
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(entry)

    def _wake(self) -> None:
        for entry in list(self._waiting):
            skill, woken = entry
            if not woken.done() and self._capacity.has_room(skill):
                self._capacity.take(skill)  # here, not when it runs: nobody may overtake it
                self._waiting.remove(entry)
                woken.set_result(None)

    def _checked(self, checker: CapacityChecker, skills: tuple[str, ...]) -> Iterable[str]:
        if self._checker_takes_skill:
            return [skill for skill in skills if self._ask(checker, skill)]
        return skills if self._ask(checker) else ()

    def _ask(self, checker: CapacityChecker, *args: Any) -> bool:
        try:
            return bool(checker(*args))
        except Exception:  # noqa: BLE001 - user code: its error must not stop the worker from taking tasks
            now = time.monotonic()
            if now - self._complained >= _COMPLAIN_EVERY:
                self._complained = now
                _log.exception(
                    "the capacity checker failed; counted as having capacity", extra={"action": "checker_failed"}
                )
            return True
