"""Sends skills' messages while they run: events in order, progress coalesced, all before the task's result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from avtomatika_worker.delivery.attempt import Delivery, delivery_of, events_lane
from avtomatika_worker.delivery.outbox import FLUSH_TIMEOUT, Outbox
from avtomatika_worker.errors import MalformedMessageError, RejectedError, TransportError, UnsendableValueError
from avtomatika_worker.execution.containment import owned_by
from avtomatika_worker.execution.payloads import NO_FACTS, EventFacts, unsendable
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.protocol.messages import PROGRESS_EVENT, Event, Task

_log: Final = logging.getLogger("avtomatika_worker.events")

_QUEUE_LIMIT: Final = 1_000
"""Events of one task that may wait; a skill that sends faster waits for room."""

_LAST_PROGRESS_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class _Queued:
    """An event that waits for those before it; ``stored`` ends when it is on disk, where it is stored first."""

    delivery: Delivery
    stored: asyncio.Task[None] | None


class TaskEvents:
    """The events of one task, sent by a coroutine of its own that lives only while there is something to send."""

    def __init__(
        self,
        link: Link,
        task: Task,
        loop: asyncio.AbstractEventLoop,
        group: asyncio.TaskGroup,
        outbox: Outbox,
        *,
        progress_interval: float,
        max_bytes: int | None = None,
    ) -> None:
        self._link = link
        self._world = link.world
        self._outbox = outbox
        self._task = task
        self._first_id = task.task_id
        self._group = group
        self._interval = progress_interval
        self._max_bytes = max_bytes
        self._loop = loop
        self._thread = threading.get_ident()
        self._queue: deque[_Queued] = deque()
        self._arriving: deque[Event] = deque()
        self._progress: Event | None = None
        self.reported: tuple[float, float] | None = None
        """The newest progress, and when it came, in monotonic seconds. May be read from any thread."""
        self._progress_at = -progress_interval
        self._sender: asyncio.Task[None] | None = None
        self._closed = False
        self.on_stale: Callable[[], None] = lambda: None
        """Called on the main loop when the orchestrator says that it waits for another attempt at the task."""

    # ----------------------------------------------------------------------------------- called by skills, any thread

    def unsendable(self, event_type: str, payload: dict[str, Any], facts: EventFacts) -> str | None:
        """Return why the orchestrator could not take an event, None when it can."""
        return unsendable(event_type, payload, self._link.dialect, self._max_bytes, facts)

    def progress(self, progress: float, message: str) -> None:
        """Take the newest progress; an older one that has not been sent is forgotten."""
        self.reported = progress, self._world.monotonic()
        event = self._event(PROGRESS_EVENT, {"progress": progress, "message": message})
        if threading.get_ident() == self._thread:
            self._put_progress(event)
        else:
            self._loop.call_soon_threadsafe(self._put_progress, event)

    def event(self, event_type: str, payload: dict[str, Any], facts: EventFacts) -> None:
        """Take an event. In a thread, wait while the queue is full."""
        event = self._event(event_type, payload, facts)
        if threading.get_ident() == self._thread:
            self._put(event)
            return
        self._arriving.append(event)
        self._loop.call_soon_threadsafe(self._arrive)
        # Those that have not crossed yet count too: the main loop may be blocked.
        if len(self._queue) + len(self._arriving) >= _QUEUE_LIMIT:
            asyncio.run_coroutine_threadsafe(self._wait_for_room(), self._loop).result()

    def room(self) -> Generator[Any, None, None]:
        """Wait, on the main loop, until there is room for another event."""
        yield from self._wait_for_room().__await__()

    # ----------------------------------------------------------------------------------- called by the worker

    def rename(self, task: Task) -> None:
        """Send what follows, and progress that waits, as that of ``task``: the same one, handed out again."""
        self._task = task
        if self._progress is not None:
            id_ = task.task_id
            self._progress = msgspec.structs.replace(self._progress, target_task_id=id_, origin_task_id=id_)

    def close(self) -> Coroutine[Any, Any, None] | None:
        """Return what sends the rest, for at most `FLUSH_TIMEOUT`; None when nothing was sent, as for most tasks.

        What remains then follows in the background.
        """
        self._closed = True
        return None if self._sender is None else self._flush(self._sender)

    async def _flush(self, sender: asyncio.Task[None]) -> None:
        self._wake.set()
        until = self._world.monotonic() + FLUSH_TIMEOUT
        if not sender.done():
            await asyncio.wait({sender}, timeout=FLUSH_TIMEOUT)
        await self._outbox.events_settled(self._link, self._first_id, until - self._world.monotonic())

    # ----------------------------------------------------------------------------------- inside

    @cached_property  # made when needed: most tasks send nothing
    def _wake(self) -> asyncio.Event:
        return asyncio.Event()

    @cached_property
    def _progress_backoff(self) -> Backoff:
        return Backoff(self._link.settings.calls)

    @cached_property
    def _room(self) -> asyncio.Event:
        room = asyncio.Event()
        room.set()
        return room

    async def _wait_for_room(self) -> None:
        await self._room.wait()

    def _event(self, event_type: str, payload: dict[str, Any], facts: EventFacts = NO_FACTS) -> Event:
        chain = facts.identity_chain
        return Event(
            event_id=self._world.uuid(),
            worker_id=self._link.worker_id,
            origin_worker_id=facts.origin_worker_id or self._link.worker_id,
            event_type=event_type,
            payload=payload,
            target_job_id=self._task.job_id,
            target_task_id=self._task.task_id,
            origin_task_id=self._task.task_id,
            trace_context=dict(self._link.telemetry.tracing.carrier()),
            priority=facts.priority,
            metadata=facts.metadata,
            identity_chain=self._task.chain_through(self._link.worker_id) if chain is None else tuple(chain),
        )

    def _arrive(self) -> None:
        self._put(self._arriving.popleft())

    def _put(self, event: Event) -> None:
        delivery = delivery_of(self._link, event)
        delivery.lane = events_lane(self._link, self._first_id)  # they stay in order when the task gets another id
        # It may wait for long behind one that is not answered.
        stored = self._begin(self._outbox.secure(delivery), "storing") if self._outbox.store_first else None
        self._queue.append(_Queued(delivery, stored))
        self._wake.set()
        if len(self._queue) >= _QUEUE_LIMIT:
            self._room.clear()
        self._start()

    def _put_progress(self, event: Event) -> None:
        self._progress = event
        self._start()

    def _start(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = self._begin(self._send_all(), "sending")

    def _begin(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        with owned_by(None):  # the worker's, although a skill's call has led here
            return self._group.create_task(work, name=f"{what} events of {self._task.task_id}")

    async def _send_all(self) -> None:
        try:
            await self._send_rest()
        except asyncio.CancelledError:
            for queued in self._queue:
                self._outbox.set_aside(queued.delivery)
            raise

    async def _send_rest(self) -> None:
        while self._queue or self._progress is not None:
            if self._queue:
                if (wait := self._link.event_tokens.take(self._world.monotonic())) > 0:
                    await asyncio.sleep(wait)
                queued = self._queue.popleft()
                self._room.set()
                await self._outbox.deliver_event(queued.delivery, queued.stored)
                continue
            wait = self._progress_at + self._interval - self._world.monotonic()
            if wait > 0 and not self._closed:
                await self._pause(wait)
                continue
            newest, self._progress = self._progress, None
            self._progress_at = self._world.monotonic()
            if newest is not None:
                await self._send_progress(newest)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the task runs or until an event wants to go out."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _send_progress(self, event: Event) -> None:
        """Send progress; when it does not get through, the newest is tried again after a while, a few times."""
        try:
            await self._send(event)
        except (TransportError, MalformedMessageError) as error:
            if isinstance(error, RejectedError) and not error.retryable:
                self._blocked(event, str(error))
                return
            delay = delay_after(self._progress_backoff, error, self._world)
            _log.debug("progress of task %s not delivered: %s", self._task.task_id, error)
            if self._closed and self._progress_backoff.attempts > _LAST_PROGRESS_ATTEMPTS:
                return
            self._progress = self._progress or event
            await self._pause(delay)
        else:
            self._progress_backoff.succeeded()

    async def _send(self, event: Event) -> None:
        try:
            reply = await self._link.send_event(event)
        except UnsendableValueError as error:
            self._blocked(event, f"it cannot be sent: {error}")
            return
        if reply.stale:
            self.on_stale()
        elif not reply.accepted:
            self._blocked(event, f"{reply.code}: {reply.message}")

    def _blocked(self, event: Event, why: str) -> None:
        _log.error(
            "event %r of task %s was not taken by %s: %s",
            event.event_type,
            self._task.task_id,
            self._link.url,
            why,
            extra={"action": "event_refused"},
        )
