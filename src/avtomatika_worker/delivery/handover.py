"""From a task's end to the outbox: the result is safe, its events are out, and no slot waits for an orchestrator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.messages import TaskResult

HELD: Final = 0.25
"""Seconds for which a task keeps its slot after its end: an orchestrator that answers at once sets the pace."""

LATE: Final = 20
"""First attempts that one orchestrator may leave unanswered for longer than that; what follows waits in the outbox."""


class Handover:
    """Hands results to the outbox. Runs on the main loop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._late: Counter[Link] = Counter()

    async def deliver(
        self,
        link: Link,
        result: TaskResult,
        *,
        free: Callable[[], None] | None,
        before: Callable[[], Awaitable[None]] | None = None,
        older_ids: Sequence[str] = (),
    ) -> None:
        """Await ``before``, and deliver a result, or leave it to the outbox; with ``always`` it is on disk before both.

        ``free`` is called when that takes longer than `HELD`. Cancelled, the outbox has the result. ``older_ids`` are
        those that its task had before.
        """
        late = False

        def take_longer() -> None:
            nonlocal late
            late = True
            self._late[link] += 1
            if free is not None:
                free()

        delivery = delivery_of(link, result)
        self._outbox.works.enter(delivery, older_ids)
        timer = asyncio.get_running_loop().call_later(HELD, take_longer)
        try:
            try:
                await self._outbox.secure(delivery)
                if before is not None:
                    await before()
            except BaseException:
                self._outbox.set_aside(delivery)
                raise
            await self._outbox.deliver(delivery, at_once=self._late[link] - late < LATE)
        finally:
            timer.cancel()
            if late:
                self._late[link] -= 1
