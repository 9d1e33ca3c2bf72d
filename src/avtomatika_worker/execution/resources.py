"""Creates the resources of a process, and closes them in reverse order."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.making import End, RunPlain, end_within, make, run_here
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.skills.binding import Injectables
from avtomatika_worker.skills.resource import Resource
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.resources")

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that all resources of a process together get to be closed."""

_RESERVE: Final = 0.5
"""Seconds of that total reserved for each resource that is still to be closed."""


class Resources:
    """The resources of one process. ``given`` are existing values, by type, used instead of creating one."""

    def __init__(
        self,
        wanted: Sequence[Resource],
        injectables: Injectables,
        run_plain: RunPlain = run_here,
        given: Mapping[Any, object] | None = None,
        world: World = REAL,
    ) -> None:
        self._monotonic = world.monotonic
        self.values: dict[Any, object] = dict(given or {})
        self._wanted = [each for each in wanted if each.kind not in self.values]
        self._injectables = injectables
        self._run_plain = run_plain
        self._children = Children()
        self._open: list[tuple[Resource, End]] = []

    async def open(self) -> None:
        """Create all, in order. If one cannot be created, close the earlier ones and raise its `ResourceError`."""
        try:
            for resource in self._wanted:
                began = self._monotonic()
                await self._make(resource)
                restore_logging()
                seconds = round(self._monotonic() - began, 3)
                _log.info(
                    "resource %s is ready after %.3f s",
                    resource.name,
                    seconds,
                    extra={"action": "resource_ready", "resource": resource.name, "seconds": seconds},
                )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the resources made by generators, the last one first, within `CLOSE_TIMEOUT` seconds.

        A failure or a timeout is logged and does not keep the others from being closed.
        """
        deadline = self._monotonic() + CLOSE_TIMEOUT
        while self._open:
            resource, end = self._open.pop()
            seconds = max(deadline - self._monotonic() - _RESERVE * len(self._open), _RESERVE)
            await end_within(seconds, end, partial(_log_close, resource))
        self.values.clear()

    async def _make(self, resource: Resource) -> None:
        needed = {name: self.values[self._injectables.key_for(kind)] for name, kind in resource.needs.items()}
        made = await make(resource.name, resource.definition.func, (), needed, self._run_plain, self._children)
        if made.end is not None:
            self._open.append((resource, made.end))
        self.values[resource.kind] = made.value


def _log_close(resource: Resource, problem: str, error: BaseException | None) -> None:
    _log.error(
        "resource %s %s",
        resource.name,
        problem,
        exc_info=error,
        extra={"action": "resource_close_failed", "resource": resource.name},
    )
