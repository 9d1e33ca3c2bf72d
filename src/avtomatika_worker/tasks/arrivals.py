"""A bounded queue from any thread to a service on the main loop, which may not be running yet."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import AsyncGenerator
from typing import Final, Generic, TypeVar

from avtomatika_worker import threadsafe

_T = TypeVar("_T")

MOST_WAITING: Final = 1_000
"""Maximum number of queued items."""


class Arrivals(Generic[_T]):
    """Holds at most `MOST_WAITING` items, in order, until the service takes them."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[_T] = queue.Queue(MOST_WAITING)
        self._some = threadsafe.Event()

    def put(self, thing: _T) -> bool:
        """Add an item, from any thread; return false if there is no room."""
        try:
            self._waiting.put_nowait(thing)
        except queue.Full:
            return False
        self._some.open()
        return True

    async def take(self) -> AsyncGenerator[_T, None]:
        """Yield the items, present and future."""
        while True:
            await self._some.wait()
            self._some.close()  # first: anything that arrives meanwhile opens it again
            while not self._waiting.empty():
                yield self._waiting.get_nowait()

    def take_all(self) -> list[_T]:
        """Return the items that are left."""
        waiting: list[_T] = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._waiting.get_nowait())
        return waiting
