"""Notifies others of changes: waiting predicates, and streams of changes."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from avtomatika_worker._boundaries import caught
from avtomatika_worker.devserver.observing import OBSERVERS
from avtomatika_worker.devserver.snapshots import JobRecord

_T = TypeVar("_T")
_BACKLOG: Final = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened.

    ``kind`` is a job's new state ("queued", "running", "finished", "failed", "quarantined", "cancelled"), or
    "retrying", "progress", "event", "result_ignored", "worker_registered", "worker_status", "worker_lost",
    "worker_connected", "worker_disconnected", "problem". ``data`` is JSON-able: the job as it was then (or the event),
    the worker or the problem.
    """

    number: int
    kind: str
    time: float
    job: JobRecord | None
    worker_id: str | None
    data: dict[str, Any]


class Subscription(AsyncIterator[Change]):
    """The changes from now on, in order. Ends when the orchestrator stops or on `close`.

    A reader that falls 10,000 changes behind loses the oldest ones; gaps show in `Change.number`.
    """

    def __init__(self, hub: Hub, wanted: Callable[[Change], bool] | None) -> None:
        self._hub = hub
        self._wanted = wanted
        self._changes: deque[Change] = deque(maxlen=_BACKLOG)
        self._news = asyncio.Event()
        self._closed = False

    def put(self, change: Change) -> None:
        """Add a change if it is wanted."""
        if self._wanted is None or self._wanted(change):
            self._changes.append(change)
            self._news.set()

    def close(self) -> None:
        """End the stream after the changes so far."""
        self._closed = True
        self._news.set()
        self._hub.unsubscribe(self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Change:
        while not self._changes:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._changes.popleft()

    @property
    def pending(self) -> bool:
        """Whether a change can be read at once."""
        return bool(self._changes)

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._closed and not self._changes

    async def next_within(self, seconds: float) -> Change | None:
        """Return the next change, or None on a timeout or at the end of the stream."""
        try:
            async with asyncio.timeout(seconds):
                return await self.__anext__()
        except (TimeoutError, StopAsyncIteration):
            return None

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


@dataclass(eq=False, slots=True)
class _Waiter:
    predicate: Callable[[], object]
    future: asyncio.Future[Any]

    def check(self) -> None:
        if self.future.done():
            return
        with caught(Exception) as kept:  # the predicate is the caller's: its error is raised where it waits
            if value := self.predicate():
                self.future.set_result(value)
        if kept.error is not None:
            self.future.set_exception(kept.error)


class Hub:
    """Every change goes through `publish` or, if only waiting predicates care, `touch`."""

    def __init__(self) -> None:
        self._waiters: list[_Waiter] = []
        self._subscriptions: list[Subscription] = []
        self._numbers = itertools.count(1)
        self.url: str = ""
        """The orchestrator's, for observers."""

    def publish(
        self,
        kind: str,
        now: float,
        data: Callable[[], dict[str, Any]],
        *,
        job: JobRecord | None = None,
        worker_id: str | None = None,
    ) -> None:
        """Notify observers, subscribers and waiting predicates; ``data`` is only called if there is a listener."""
        if self._subscriptions or OBSERVERS:
            change = Change(next(self._numbers), kind, now, job, worker_id, data())
            for observer in tuple(OBSERVERS):
                observer.changed(self.url, change)
            for subscription in tuple(self._subscriptions):
                subscription.put(change)
        self.touch()

    def touch(self) -> None:
        """Make the waiting predicates check again."""
        for waiter in tuple(self._waiters):
            waiter.check()

    def subscribe(self, wanted: Callable[[Change], bool] | None = None) -> Subscription:
        """Return the changes from now on, all of them or the ``wanted`` ones."""
        subscription = Subscription(self, wanted)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    async def wait_for(self, predicate: Callable[[], _T], timeout: float | None) -> _T:
        """Return the first true value of ``predicate``. Raises TimeoutError, or what the predicate raises."""
        waiter = _Waiter(predicate, asyncio.get_running_loop().create_future())
        waiter.check()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                value: _T = await waiter.future
                return value
        finally:
            self._waiters.remove(waiter)
