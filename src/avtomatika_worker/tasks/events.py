"""Sends skills' messages while they run, before the task's result: events in order, chunks and progress coalesced.

What can be coalesced goes out as dense as the orchestrator's limit allows; nothing of a stream is dropped for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import cached_property
from typing import Any, Final

import msgspec

from avtomatika_worker.delivery.attempt import Delivery, delivery_of, events_lane
from avtomatika_worker.delivery.outbox import FLUSH_TIMEOUT, Outbox
from avtomatika_worker.errors import MalformedMessageError, RejectedError, TransportError, UnsendableValueError
from avtomatika_worker.execution.containment import owned_by
from avtomatika_worker.execution.payloads import NO_FACTS, EventFacts, unsendable
from avtomatika_worker.link.call_budgets import CHECK_AGAIN
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after
from avtomatika_worker.observability import metrics
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.protocol.messages import PROGRESS_EVENT, Event, Task
from avtomatika_worker.skills.chunks import CHUNK_EVENT, ChunkKind
from avtomatika_worker.tasks.outgoing import Chunks, Outgoing

_log: Final = logging.getLogger("avtomatika_worker.events")

_QUEUE_LIMIT: Final = 1_000
"""Events of one task that may wait; a skill that sends faster waits for room."""

_LAST_PROGRESS_ATTEMPTS: Final = 5

_LAST_SECOND: Final = 2**40
"""Far later than any real time: a larger number is not a time."""

_LOOK_EVERY: Final = 0.1
"""Seconds after which a thread that waits for room looks whether its task was cancelled."""


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
        self._task = self._first = task
        self._group = group
        self._interval = progress_interval
        self._max_bytes = max_bytes
        self._arrived_at = self._world.monotonic()
        self._loop = loop
        self._thread = threading.get_ident()
        self._outgoing = Outgoing()
        self._unsecured: deque[Event] = deque()
        self._stored: dict[str, tuple[Delivery, asyncio.Task[None]]] = {}
        self._alerted = self._urgent = False
        self._chunks_sent = 0
        self._chunks_at = -math.inf
        self._progress: deque[Event] = deque(maxlen=1)
        self.reported: tuple[float, float] | None = None
        """The newest progress and its time in monotonic seconds. May be read from any thread."""
        self._progress_at = -progress_interval
        self._sender: asyncio.Task[None] | None = None
        self._shares = False
        self._closed = False
        self.on_stale: Callable[[], None] = lambda: None
        """Called on the main loop when the orchestrator reports that it is waiting for another attempt at the task."""

    # ----------------------------------------------------------------------------------- called by skills, any thread

    def unsendable(self, event_type: str, payload: dict[str, Any], facts: EventFacts) -> str | None:
        """Return why the orchestrator would refuse an event, or None if it would accept it."""
        return unsendable(event_type, payload, self._link.dialect, self._max_bytes, facts)

    def progress(self, progress: float, message: str) -> None:
        """Accept the newest progress, which replaces any that is still unsent."""
        self.reported = progress, self._world.monotonic()
        self._progress.append(self._event(PROGRESS_EVENT, {"progress": progress, "message": message}))
        self._alert(urgent=True)

    def event(self, event_type: str, payload: dict[str, Any], facts: EventFacts) -> None:
        """Accept an event. In a thread, wait while the queue is full."""
        event = self._event(event_type, payload, facts)
        if self._outbox.store_first:
            self._unsecured.append(event)
        self._outgoing.add_event(event)
        self._alert(urgent=True)
        # The main loop may be blocked, so the limit is checked here.
        if threading.get_ident() != self._thread and self._outgoing.events >= _QUEUE_LIMIT:
            asyncio.run_coroutine_threadsafe(self._room_for_events(), self._loop).result()

    def room(self) -> Generator[Any, None, None]:
        """Wait, on the main loop, until there is room for another event."""
        yield from self._room_for_events().__await__()

    def chunk(self, kind: ChunkKind, data: Any, size: int) -> bool:
        """Accept a chunk; return whether there is room for another."""
        has_room = self._outgoing.add_chunk(kind, data, size)
        self._alert(urgent=False)
        return has_room

    async def chunk_room(self) -> None:
        """Wait, on the main loop, until there is room for another chunk."""
        while not self._outgoing.has_room:
            self._room.clear()
            await self._room.wait()

    def wait_for_chunk_room(self, stopped: Callable[[], bool]) -> None:
        """Do the same in a thread, until the stream is ``stopped``."""
        while not self._outgoing.wait_for_room(_LOOK_EVERY) and not stopped():
            pass

    # ----------------------------------------------------------------------------------- called by the worker

    def rename(self, task: Task) -> None:
        """Send pending progress and everything from now on as that of ``task``, a new hand-out of the same one."""
        self._task = task
        waits, id_ = self._newest_progress(), task.task_id
        if waits is not None and not self._progress:
            self._progress.append(msgspec.structs.replace(waits, target_task_id=id_, origin_task_id=id_))

    def close(self) -> Coroutine[Any, Any, None] | None:
        """Return a coroutine that sends the rest, for at most `FLUSH_TIMEOUT`; None if there is nothing to send.

        Whatever remains after that is sent in the background.
        """
        self._closed = True
        if self._shares:
            self._shares = False
            self._link.events.leave()
        return None if self._sender is None else self._flush(self._sender)

    async def _flush(self, sender: asyncio.Task[None]) -> None:
        self._wake.set()
        until = self._world.monotonic() + FLUSH_TIMEOUT
        if not sender.done():
            await asyncio.wait({sender}, timeout=FLUSH_TIMEOUT)
        left = until - self._world.monotonic()
        if self._link.events.held_for() <= left:  # a result never waits for the events' rate limit
            await self._outbox.events_settled(self._link, self._first.task_id, left)

    # ----------------------------------------------------------------------------------- inside

    @cached_property  # created on demand: most tasks send nothing
    def _wake(self) -> asyncio.Event:
        return asyncio.Event()

    @cached_property
    def _progress_backoff(self) -> Backoff:
        return Backoff(self._link.settings.calls)

    @cached_property  # from the arrival and the first hand-out: the task may be handed out again while it runs
    def _attempt(self) -> int:
        passed = self._world.monotonic() - self._arrived_at
        return attempt_number(self._first.timestamp, self._link.now() - passed)

    @cached_property
    def _room(self) -> asyncio.Event:
        return asyncio.Event()

    async def _room_for_events(self) -> None:
        while self._outgoing.events >= _QUEUE_LIMIT:
            self._room.clear()
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

    def _alert(self, *, urgent: bool) -> None:
        """Schedule what was just queued for sending, at once if ``urgent``. Called from any thread."""
        if urgent:
            self._urgent = True
        if threading.get_ident() == self._thread:
            self._arrived()
        elif not self._alerted:  # one call for everything queued until the main loop gets to it
            self._alerted = True
            self._loop.call_soon_threadsafe(self._arrived)

    def _arrived(self) -> None:
        self._alerted = False
        self._secure()
        if not self._shares and not self._closed and (self._progress or self._outgoing.has_chunks):
            self._shares = True
            self._link.events.join()
        if self._urgent:
            self._urgent = False
            self._wake.set()
        if self._sender is None or self._sender.done():
            self._sender = self._begin(self._send_all(), "sending")

    def _secure(self) -> None:
        """Start storing new events: one may wait a long time behind another that is not answered."""
        while self._unsecured:
            event = self._unsecured.popleft()
            delivery = self._delivery(event)
            self._stored[event.event_id] = (delivery, self._begin(self._outbox.secure(delivery), "storing"))

    def _begin(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        with owned_by(None):  # the worker's, although a skill's call led here
            return self._group.create_task(work, name=f"{what} events of {self._task.task_id}")

    async def _send_all(self) -> None:
        try:
            await self._send_rest()
        except asyncio.CancelledError:
            self._unsecured.clear()  # each would be stored a second time, and nothing would remove it
            while (each := self._outgoing.take()) is not None:
                self._outbox.set_aside(self._delivery_of(each)[0])
            raise

    async def _send_rest(self) -> None:
        while (first := self._outgoing.first) is not None or self._progress:
            waits = self._wait_of(first), self._progress_wait()
            if waits[0] <= 0:
                await self._send_first()
            elif waits[1] <= 0:
                await self._send_newest_progress()
            else:
                await self._pause(min(*waits, CHECK_AGAIN))

    def _wait_of(self, first: Event | Chunks | None) -> float:
        """Return the seconds until the first queued item may be sent; chunks wait for others to combine with."""
        if first is None:
            return math.inf
        if not isinstance(first, Chunks) or first.hurried or self._closed:
            return 0.0
        if self._outbox.events_wait(self._link, self._first.task_id):
            return math.inf
        interval = self._link.events.stream_interval()
        return interval if math.isinf(interval) else self._chunks_at + interval - self._world.monotonic()

    def _progress_wait(self) -> float:
        if not self._progress:
            return math.inf
        if self._closed:
            return 0.0
        return self._progress_at + max(self._interval, self._link.events.stream_interval()) - self._world.monotonic()

    async def _send_first(self) -> None:
        if (wait := self._link.event_tokens.take(self._world.monotonic())) > 0:
            await asyncio.sleep(wait)
        taken = self._outgoing.take()
        if taken is None:
            return
        self._room.set()
        self._secure()  # a thread may have queued it just now: this ensures one delivery, stored once
        delivery, stored = self._delivery_of(taken)
        if isinstance(taken, Chunks):
            self._chunks_at = self._world.monotonic()
        if stored is None and self._outbox.store_first:
            stored = self._begin(self._outbox.secure(delivery), "storing")
        await self._outbox.deliver_event(delivery, stored)
        if isinstance(taken, Chunks):
            self._measure(taken)

    def _delivery_of(self, taken: Event | Chunks) -> tuple[Delivery, asyncio.Task[None] | None]:
        """Return the delivery of an item taken from the queue, and the task that is already storing it, if any."""
        if isinstance(taken, Chunks):
            count = len(taken.parts)
            payload = {"attempt": self._attempt, "index": self._chunks_sent, "count": count, "data": taken.data}
            self._chunks_sent += 1
            return self._delivery(self._event(CHUNK_EVENT, payload)), None
        return self._stored.pop(taken.event_id, None) or (self._delivery(taken), None)

    def _delivery(self, event: Event) -> Delivery:
        delivery = delivery_of(self._link, event)
        delivery.lane = events_lane(self._link, self._first.task_id)  # keeps them in order when the task is renamed
        return delivery

    def _measure(self, chunks: Chunks) -> None:
        recorder, skill = self._link.telemetry.metrics, self._task.type  # a registered skill, since it yields
        recorder.count(metrics.CHUNKS, skill, by=len(chunks.parts))
        recorder.record(metrics.CHUNKS_PER_EVENT, len(chunks.parts), skill)
        if self._chunks_sent == 1:
            recorder.time(metrics.FIRST_CHUNK, self._world.monotonic() - self._arrived_at, skill)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the task ends or an event is ready to be sent."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _newest_progress(self) -> Event | None:
        try:
            return self._progress.popleft()
        except IndexError:
            return None

    async def _send_newest_progress(self) -> None:
        newest = self._newest_progress()
        self._progress_at = self._world.monotonic()
        if newest is None or (self._closed and self._link.events.held_for() > 0):
            return
        await self._send_progress(newest)

    async def _send_progress(self, event: Event) -> None:
        """Send progress; if that fails, retry with the newest after a while, a few times."""
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
            if not self._progress:
                self._progress.append(event)
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
            "event %r of task %s was not accepted by %s: %s",
            event.event_type,
            self._task.task_id,
            self._link.url,
            why,
            extra={"action": "event_refused"},
        )


def attempt_number(handed_out: object, now: float) -> int:
    """Return the number of an attempt: a later attempt has a higher number, whichever worker runs it.

    It is the time when the task was ``handed_out``, in Unix milliseconds on the orchestrator's clock, which some
    releases give in whole seconds or not at all. ``now`` is this worker's estimate of that time.
    """
    if isinstance(handed_out, int | float) and not isinstance(handed_out, bool) and 0 < handed_out < _LAST_SECOND:
        now = min(max(now, handed_out), math.floor(handed_out) + 0.999)
    return int(now * 1000)
