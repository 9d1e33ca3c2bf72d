"""Events of the worker's own, which belong to no task. Sent from the main loop, in order, as those of tasks are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from avtomatika_worker.delivery.attempt import Delivery, delivery_of
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.payloads import NO_FACTS, EventFacts
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.messages import Event
from avtomatika_worker.tasks.arrivals import Arrivals


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
    """The events that wait to be sent."""

    _arrivals: Arrivals[WorkerEvent] = field(default_factory=Arrivals[WorkerEvent])

    def put(self, event: WorkerEvent) -> bool:
        """Take an event, from any thread; false when too many wait."""
        return self._arrivals.put(event)

    async def run(self, links: Sequence[Link], outbox: Outbox) -> None:
        """Send events until cancelled: to the first orchestrator that is registered at, else to the first.

        What waits then is the outbox's.
        """
        try:
            async with aclosing(self._arrivals.take()) as events:
                async for event in events:
                    await _send(event, links, outbox)
        finally:
            for event in self._arrivals.take_all():
                outbox.set_aside(_delivery(event, links))


async def _send(event: WorkerEvent, links: Sequence[Link], outbox: Outbox) -> None:
    delivery = _delivery(event, links)
    try:
        await delivery.link.known.wait()
    except asyncio.CancelledError:
        outbox.set_aside(delivery)
        raise
    await outbox.deliver_event(delivery, None)


def _delivery(event: WorkerEvent, links: Sequence[Link]) -> Delivery:
    link = next((each for each in links if each.ready.is_open), links[0])
    return delivery_of(link, _message(event, link))


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
