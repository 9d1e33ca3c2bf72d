"""Events of the worker's own, which belong to no task. Sent from the main loop, in order, as those of tasks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from avtomatika_worker.delivery.attempt import delivery_of
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.messages import Event
from avtomatika_worker.threadsafe import Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent:
    """An event; ``origin`` is the worker that it comes from, None for this one."""

    event_type: str
    payload: Mapping[str, Any]
    event_id: str | None = None
    origin: str | None = None
    job_id: str | None = None
    task_id: str | None = None
    origin_task_id: str | None = None
    priority: float = 0.0
    metadata: Mapping[str, Any] | None = None
    trace_context: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """The events that wait to be sent."""

    _queue: Queue[WorkerEvent] = field(default_factory=Queue[WorkerEvent])

    def put(self, event: WorkerEvent) -> bool:
        """Take an event, from any thread; false when too many wait."""
        return self._queue.put(event)

    async def run(self, links: Sequence[Link], outbox: Outbox) -> None:
        """Send events until cancelled: to the first orchestrator that is registered at, else to the first."""
        async with aclosing(self._queue.read()) as events:
            async for event in events:
                link = next((each for each in links if each.ready.is_open), links[0])
                await link.known.wait()
                await outbox.deliver_event(delivery_of(link, _message(event, link)), None)


def _message(event: WorkerEvent, link: Link) -> Event:
    return Event(
        event_id=event.event_id or link.world.uuid(),
        worker_id=link.worker_id,
        origin_worker_id=event.origin or link.worker_id,
        event_type=event.event_type,
        payload=dict(event.payload),
        target_job_id=event.job_id,
        target_task_id=event.task_id,
        origin_task_id=event.origin_task_id or event.task_id,
        trace_context=dict(event.trace_context or {}),
        priority=event.priority,
        metadata=None if event.metadata is None else dict(event.metadata),
    )
