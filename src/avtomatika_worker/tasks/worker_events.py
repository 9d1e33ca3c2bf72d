"""The worker's own events, which belong to no task. Sent from the main loop, in order, as those of tasks are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.payloads import NO_FACTS, EventFacts, unsendable
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.messages import Event
from avtomatika_worker.tasks.arrivals import Arrivals

_log: Final = logging.getLogger("avtomatika_worker.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent:
    """An event that belongs to no task."""

    event_type: str
    payload: dict[str, Any]
    facts: EventFacts = NO_FACTS
    event_id: str | None = None
    job_id: str | None = None
    task_id: str | None = None
    origin_task_id: str | None = None
    trace_context: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """The events that are waiting to be sent."""

    _arrivals: Arrivals[WorkerEvent] = field(default_factory=Arrivals[WorkerEvent])

    def put(self, event: WorkerEvent) -> bool:
        """Accept an event, from any thread; return false if too many are waiting."""
        return self._arrivals.put(event)

    async def run(self, links: Sequence[Link], outbox: Outbox, max_bytes: int | None) -> None:
        """Send events until cancelled: to every orchestrator the worker is registered with, or else to the first one.

        An event that an orchestrator would refuse, or that is longer than ``max_bytes``, is logged as an error.
        """
        async with aclosing(self._arrivals.take()) as events:
            async for event in events:
                await _send_to_all(event, _receivers(links), outbox, max_bytes)

    def set_aside(self, links: Sequence[Link], outbox: Outbox) -> None:
        """Leave waiting events to the outbox, which stores them: the worker is ending, perhaps before anything ran."""
        for event in self._arrivals.take_all():
            _set_aside(event, _receivers(links), outbox)


def _receivers(links: Sequence[Link]) -> deque[Link]:
    return deque([each for each in links if each.ready.is_open] or links[:1])


async def _send_to_all(event: WorkerEvent, links: deque[Link], outbox: Outbox, max_bytes: int | None) -> None:
    try:
        while links:
            await links[0].known.wait()
            await _send(event, links.popleft(), outbox, max_bytes)
    finally:
        _set_aside(event, links, outbox)


async def _send(event: WorkerEvent, link: Link, outbox: Outbox, max_bytes: int | None) -> None:
    if problem := unsendable(event.event_type, event.payload, link.dialect, max_bytes, event.facts):
        text = "event %r of the worker not sent to %s: %s"
        _log.error(text, event.event_type, link.url, problem, extra={"action": "event_blocked"})
        return
    try:
        if (wait := link.event_tokens.take(link.world.monotonic())) > 0:
            await asyncio.sleep(wait)
    except asyncio.CancelledError:
        _set_aside(event, [link], outbox)
        raise
    await outbox.deliver_event(delivery_of(link, _message(event, link)), None)


def _set_aside(event: WorkerEvent, links: Iterable[Link], outbox: Outbox) -> None:
    for link in links:
        outbox.set_aside(delivery_of(link, _message(event, link)))


def _message(event: WorkerEvent, link: Link) -> Event:
    return Event(
        event_id=event.event_id or link.world.uuid(),
        worker_id=link.worker_id,
        origin_worker_id=event.facts.origin_worker_id or link.worker_id,
        event_type=event.event_type,
        payload=event.payload,
        target_job_id=event.job_id,
        target_task_id=event.task_id,
        origin_task_id=event.origin_task_id or event.task_id,
        trace_context=dict(event.trace_context or {}),
        priority=event.facts.priority,
        metadata=event.facts.metadata,
        identity_chain=None if event.facts.identity_chain is None else tuple(event.facts.identity_chain),
    )
