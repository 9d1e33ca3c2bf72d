"""Delivers results and events: the first attempt on the main loop, further ones on the link thread.

A message that cannot be delivered at once is kept on disk until its orchestrator accepts or finally refuses it, or it
is older than ``RESULT_MAX_AGE``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker.delivery.attempt import Delivery, attempt, delivery_of, events_lane, keep, result_lane
from avtomatika_worker.delivery.sqlite_store import WRITE_TIMEOUT, Message
from avtomatika_worker.delivery.store import Store, decode, encode, size_of
from avtomatika_worker.delivery.works import Fate, Works
from avtomatika_worker.errors import StoreError
from avtomatika_worker.link.link import Link
from avtomatika_worker.observability import metrics
from avtomatika_worker.protocol.messages import Event, TaskResult
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.outbox")

RETRIES_IN_FLIGHT: Final = 20
"""Calls to one orchestrator that retries make side by side: what piled up in an outage must not cause the next."""

FLUSH_TIMEOUT: Final = 5.0
"""Seconds that a task's result waits for its last events; afterwards they follow it."""

BACKLOG_LIMIT: Final = 1_000
"""Undelivered results and events of an orchestrator beyond which it is asked for no more tasks ..."""

BACKLOG_BYTES: Final = 64 * 2**20
"""... or their bytes."""

RESTORED_FOR: Final = 3600.0
"""Minimum seconds to try what an earlier run left behind, however old it is by this machine's clock."""

_NONCE_LIFE: Final = 70.0
"""Seconds for which an orchestrator remembers an event it has seen (65), and a little more."""


class WaitingResult(msgspec.Struct, frozen=True):
    """A waiting result; ``restored``: left behind by an earlier run of the worker."""

    result: TaskResult
    restored: bool


class Backlog(msgspec.Struct, frozen=True):
    """What waits for an orchestrator: how many deliveries, and their bytes."""

    count: int = 0
    size: int = 0


_NOTHING: Final = Backlog()


class Outbox:
    """Holds undelivered results and events. ``store_first``: they are on disk before the first attempt.

    Deliveries of one lane are sequential; lanes are concurrent, so that a slow or refused delivery never blocks the
    others.
    """

    def __init__(self, store: Store, *, max_age: float, store_first: bool = False, world: World = REAL) -> None:
        self._world = world
        self._store = store
        self._max_age = max_age
        self.store_first: Final = store_first
        self._inbox: threadsafe.Watch[int] = threadsafe.Watch(0)
        self._lock = threading.Lock()
        self._lanes: dict[Hashable, deque[Delivery]] = {}
        self._new_lanes: list[Hashable] = []
        self._backlogs: Mapping[Link, Backlog] = {}  # replaced, never changed: it is read without the lock
        self._turns: dict[Link, asyncio.Semaphore] = {}
        self.works: Works = Works(max_age, store.forget)
        self._closed = False
        self._on_its_way: set[Delivery] = set()
        self._ending = threading.Lock()
        self._settled_at_end: set[Delivery] = set()
        self.expired: int = 0
        self.lost: int = 0

    # ------------------------------------------------------------------------------------------------ figures

    @property
    def depth(self) -> int:
        """The number of results and events waiting for another attempt."""
        return sum(each.count for each in self._backlogs.values())

    @property
    def oldest(self) -> float:
        """Seconds for which the oldest of them has waited."""
        with self._lock:
            return max((delivery.age for lane in self._lanes.values() for delivery in lane), default=0.0)

    def backlog(self, link: Link) -> int:
        """Return the number of results and events waiting for ``link``."""
        return self._backlogs.get(link, _NOTHING).count

    def is_full(self, link: Link) -> bool:
        """Whether so much is waiting for ``link`` that no more tasks should be requested there."""
        waiting = self._backlogs.get(link, _NOTHING)
        return waiting.count >= BACKLOG_LIMIT or waiting.size >= BACKLOG_BYTES

    def waiting_result(self, link: Link, task_id: str) -> WaitingResult | None:
        """Return the undelivered result of a task."""
        if not self._backlogs:
            return None
        with self._lock:
            lane = self._lanes.get(result_lane(link, task_id))
            last = lane[-1] if lane else None
        if last is None or not isinstance(last.message, TaskResult):
            return None
        return WaitingResult(last.message, last.restored)

    def discard_result(self, link: Link, task_id: str) -> None:
        """Discard a waiting result: its task's id has been handed out again, so that it would answer another task."""
        if not self._backlogs:
            return
        with self._lock:
            for delivery in self._lanes.get(result_lane(link, task_id), ()):
                delivery.discarded = True
                _log.info("%s is obsolete", delivery.name, extra={"action": "result_superseded", **delivery.ids})

    # ------------------------------------------------------------------------------------------------ life

    def open(self, links: Sequence[Link], *, required: bool) -> None:
        """Take over deliveries left by an earlier run. Raises what `Store.open` raises."""
        by_url = {link.url: link for link in links}
        restored = strangers = 0
        for row, stored in self._store.open(required=required):
            link = by_url.get(stored.url)
            if link is None:
                strangers += 1
            elif self._restore(link, row, stored):
                restored += 1
        if restored:
            _log.warning(
                "%d results and events of an earlier run are waiting", restored, extra={"action": "outbox_restored"}
            )
        if strangers:
            _log.warning(
                "%d stored results and events are for orchestrators that are not configured; they stay on disk",
                strangers,
                extra={"action": "outbox_strangers"},
            )

    def close(self) -> None:
        """Write to disk whatever is not there yet, and release the file. The sending loops must have ended."""
        left = self._store_rest()
        if left > self.lost:
            _log.warning(
                "%d results and events were not delivered; they are on disk, and go out when a worker with this id"
                " runs here again",
                left - self.lost,
                extra={"action": "outbox_left", "count": left - self.lost},
            )
        self._store.close()

    def rescue(self) -> None:
        """Write to disk whatever is not there yet. Callable from any thread once the sending loops have stopped."""
        self._closed = True
        self._store_rest()

    def _store_rest(self) -> int:
        """Store what is not stored, including what is being sent right now; return how many are not delivered."""
        with self._lock:
            waiting = [each for lane in self._lanes.values() for each in lane]
            left = [*waiting, *(each for each in self._on_its_way if each not in waiting)]
        with self._ending:  # both the loop and the last resort may get here
            rest = [each for each in left if not each.discarded and each not in self._settled_at_end]
            until = self._world.monotonic() + WRITE_TIMEOUT  # all of it together: the disk may hang
            on_disk = bool(rest) and self._store.check()
            for delivery in left:
                if delivery.discarded:
                    self._store.forget(delivery.row)
            self._settled_at_end.update(rest)
            self._store_at_end([each for each in rest if each.row is None or not on_disk], until)
        return sum(not each.discarded for each in left)

    def _store_at_end(self, deliveries: Sequence[Delivery], until: float) -> None:
        messages = [encode(each.link.url, each.message, each.created) for each in deliveries]
        for each, safe in zip(deliveries, self._store.keep_at_end(messages, until), strict=True):
            if not safe:
                self.lost += 1
                _log.error(
                    "%s is lost: neither delivered nor stored", each.name, extra={"action": "result_lost", **each.ids}
                )

    def stop_sending(self) -> None:
        """Make no more first attempts: from now on, deliveries are stored."""
        self._closed = True

    async def run(self) -> None:
        """Retry what could not be delivered at once, until cancelled. Runs on the link thread."""
        async with asyncio.TaskGroup() as retries:
            while True:
                seen = self._inbox.version
                for lane in self._take_new_lanes():
                    retries.create_task(self._work_off(lane))
                await self._inbox.changed(seen, None)

    async def drained(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until everything is delivered; return whether it is."""
        return await self._until(lambda: self.depth == 0, timeout)

    async def events_settled(self, link: Link, task_id: str, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until all events of a task are delivered; return whether they are."""
        return await self._until(lambda: not self.events_wait(link, task_id), timeout)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> bool:
        until = self._world.monotonic() + timeout
        seen = self._inbox.version
        while not condition():
            left = until - self._world.monotonic()
            if left <= 0:
                return False
            seen = await self._inbox.changed(seen, left)
        return True

    def events_wait(self, link: Link, task_id: str) -> bool:
        """Whether events of a task wait for another attempt: none can go out before them."""
        with self._lock:
            return events_lane(link, task_id) in self._lanes

    # ------------------------------------------------------------------------------------------------ first attempts

    async def secure(self, delivery: Delivery) -> None:
        """Write a delivery to disk before its first attempt, if so configured, or if it ends a checkpoint."""
        if self.store_first or delivery.checkpoint is not None:
            await keep(delivery, self._store)

    async def deliver(self, delivery: Delivery, *, at_once: bool = True) -> None:
        """Deliver, or take over; on return, the outbox is responsible. Called on the main loop.

        Without ``at_once`` no attempt is made here.
        """
        with self._lock:
            self._on_its_way.add(delivery)
        try:
            if at_once and not self._must_wait(delivery):
                delay = await attempt(delivery, self._store, self.works)
                if isinstance(delay, Fate):
                    self._end(delivery, delay)
                    return
                delivery.next_delay = delay
            await keep(delivery, self._store)
            self._wait_in_lane(delivery)
        except BaseException:
            self._wait_in_lane(delivery)  # cancelled at the very end: `close` stores it
            raise
        finally:
            with self._lock:
                self._on_its_way.discard(delivery)

    async def deliver_event(self, delivery: Delivery, stored: asyncio.Task[None] | None) -> None:
        """Deliver an event once it is ``stored``, or take it over; those of a task stay in order. On the main loop."""
        try:
            if stored is not None:
                await stored
        except BaseException:
            self.set_aside(delivery)
            raise
        await self.deliver(delivery)

    def take_over(self, link: Link, message: TaskResult | Event) -> None:
        """Take over a result or event without an attempt. Called at the very end, when nothing can be awaited."""
        self.set_aside(delivery_of(link, message))

    def set_aside(self, delivery: Delivery) -> None:
        """Take over a delivery without an attempt, like `take_over`."""
        self._wait_in_lane(delivery)

    def _end(self, delivery: Delivery, fate: Fate) -> None:
        """Forget a delivery that is settled."""
        if fate is Fate.SETTLED:
            self.works.leave(delivery)
            if delivery.row is not None:
                self._store.forget(delivery.row)

    def _must_wait(self, delivery: Delivery) -> bool:
        if self._closed or delivery.budget.held_for() > 0:
            return True
        if not self._backlogs:
            return False
        with self._lock:
            return any(not each.discarded for each in self._lanes.get(delivery.lane, ()))

    def _wait_in_lane(self, delivery: Delivery) -> None:
        delivery.size = delivery.size or size_of(delivery.message)
        with self._lock:
            self._count(delivery, 1)
            lane = self._lanes.get(delivery.lane)
            if lane is None:
                lane = self._lanes[delivery.lane] = deque()
                self._new_lanes.append(delivery.lane)
            lane.append(delivery)
        self._inbox.touch()

    def _count(self, delivery: Delivery, change: int) -> None:
        """Count a delivery that starts or stops waiting. Called with the lock held."""
        before = self._backlogs.get(delivery.link, _NOTHING)
        after = Backlog(before.count + change, before.size + change * delivery.size)
        others = {link: each for link, each in self._backlogs.items() if link is not delivery.link}
        self._backlogs = {**others, delivery.link: after} if after.count else others

    def _restore(self, link: Link, row: int, stored: Message) -> bool:
        try:
            message = decode(stored)
        except StoreError as error:
            _log.error("%s", error, extra={"action": "store_unreadable"})
            return False
        delivery = delivery_of(link, message)
        delivery.created, delivery.row, delivery.restored = stored.created, row, True
        delivery.size = len(stored.body)
        # The clock may have been changed since: it is believed only as far as nothing is lost at once.
        oldest = self._max_age - min(self._max_age, RESTORED_FOR)
        delivery.since -= min(max(0.0, self._world.wall() - stored.created), oldest)
        delivery.doubtful = self._world.wall() - stored.created < _NONCE_LIFE
        self.works.enter(delivery)
        self._wait_in_lane(delivery)
        return True

    # ------------------------------------------------------------------------------------------------ retries

    def _take_new_lanes(self) -> Sequence[Hashable]:
        with self._lock:
            taken, self._new_lanes = self._new_lanes, []
        return taken

    async def _work_off(self, lane: Hashable) -> None:
        with self._lock:
            waiting = self._lanes[lane]
        while True:
            fate = await self._retry(waiting[0])
            with self._lock:
                done = waiting.popleft()
                self._count(done, -1)
                if not waiting:
                    del self._lanes[lane]
            self._end(done, fate)
            self._inbox.touch()
            if not waiting:
                return

    async def _retry(self, delivery: Delivery) -> Fate:
        """Try until the delivery is settled, or kept."""
        link = delivery.link
        if delivery.restored and isinstance(delivery.message, TaskResult):  # its events go out before it, in order
            await link.known.wait(timeout=self._max_age)
            await self.events_settled(link, delivery.message.task_id, FLUSH_TIMEOUT)
        delay: float | Fate = delivery.next_delay
        while not isinstance(delay, Fate) and not delivery.discarded:
            # Only then is the dialect known, and the worker known to the orchestrator.
            await link.known.wait(timeout=max(0.0, self._max_age - delivery.age))
            await self._pause(delivery, delay)
            await keep(delivery, self._store)
            async with self._turns.setdefault(link, asyncio.Semaphore(RETRIES_IN_FLIGHT)):
                held = delivery.budget.held_for()
                delay = held or await attempt(delivery, self._store, self.works)
            if not isinstance(delay, Fate) and delivery.age > self._max_age:
                self._give_up(delivery)
                break
        return delay if isinstance(delay, Fate) else Fate.SETTLED

    async def _pause(self, delivery: Delivery, delay: float) -> None:
        """Wait, but only briefly if contact is restored meanwhile."""
        link = delivery.link
        seen = link.contacts.version
        until = self._world.monotonic() + delay
        if await link.contacts.changed(seen, delay) != seen:
            await asyncio.sleep(min(self._world.random.random(), max(0.0, until - self._world.monotonic())))
        await asyncio.sleep(delivery.budget.held_for())

    def _give_up(self, delivery: Delivery) -> None:
        self.expired += 1
        delivery.link.telemetry.metrics.count(metrics.EXPIRED, delivery.link.label)
        message = delivery.message
        _log.error(
            "%s (job %s, %s) given up after %.0f s and %d attempts at %s; the last one: %s",
            delivery.name,
            message.job_id if isinstance(message, TaskResult) else message.target_job_id,
            message.status if isinstance(message, TaskResult) else "event",
            delivery.age,
            delivery.backoff.attempts,
            delivery.link.url,
            delivery.last_error,
            extra={"action": "result_expired", **delivery.ids},
        )
