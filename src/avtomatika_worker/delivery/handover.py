"""Passes a task's result to the outbox at its end, after its events, without keeping a slot waiting for long."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.messages import TaskResult

HELD: Final = 0.25
"""Seconds for which a task keeps its slot after its end: an orchestrator that answers at once sets the pace."""

LATE: Final = 20
"""First attempts that one orchestrator may leave unanswered for longer than that; what follows waits in the outbox."""


@dataclass(slots=True, eq=False)
class _Handing:
    """A result that is being delivered. ``free`` is called at ``due``, a loop time; then the result is ``late``."""

    link: Link
    free: Callable[[], None] | None
    due: float
    late: bool = False


class Handover:
    """Passes results to the outbox. Created and used on the main loop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._late: dict[Link, int] = {}
        self._in_time: dict[_Handing, None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None  # one for all: hardly any is late
        self._context = contextvars.Context()  # a task's would be kept alive, with all it refers to

    async def deliver(
        self,
        link: Link,
        result: TaskResult,
        *,
        free: Callable[[], None] | None,
        before: Callable[[], Awaitable[None] | None] | None = None,
        older_ids: Sequence[str] = (),
    ) -> None:
        """Await what ``before`` returns, then deliver a result or leave it to the outbox.

        With durability ``always``, it is on disk before either. ``free`` is called if this takes longer than `HELD`. On
        cancellation, the outbox has the result. ``older_ids`` are the task's earlier ids.
        """
        delivery = delivery_of(link, result)
        self._outbox.works.enter(delivery, older_ids)
        handing = self._begin(link, free)
        try:
            try:
                await self._outbox.secure(delivery)
                if before is not None and (waiting := before()) is not None:
                    await waiting
            except BaseException:
                self._outbox.set_aside(delivery)
                raise
            await self._outbox.deliver(delivery, at_once=self._late.get(link, 0) - handing.late < LATE)
        finally:
            if handing.late:
                self._late[link] -= 1
            else:
                del self._in_time[handing]

    def _begin(self, link: Link, free: Callable[[], None] | None) -> _Handing:
        handing = _Handing(link, free, self._loop.time() + HELD)
        self._in_time[handing] = None
        if self._timer is None:
            self._look_at(handing.due)
        return handing

    def _look_at(self, due: float) -> None:
        self._timer = self._loop.call_at(due, self._look, context=self._context)

    def _look(self) -> None:
        """Free the slots of results that take longer, and check again when the next one may."""
        self._timer = None
        now = self._loop.time()
        for handing in tuple(self._in_time):
            if handing.due > now:
                self._look_at(handing.due)
                return
            del self._in_time[handing]
            handing.late = True
            self._late[handing.link] = self._late.get(handing.link, 0) + 1
            if handing.free is not None:
                handing.free()
