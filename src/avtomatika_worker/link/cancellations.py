"""Carries cancellations from the link thread to the main loop, in batches of limited size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from avtomatika_worker import threadsafe
from avtomatika_worker.link.link import Link

_log: Final = logging.getLogger("avtomatika_worker.commands")

MOST_WAITING: Final = 10_000
"""Maximum ids per orchestrator to queue for the main loop; older ones are dropped, as heartbeats repeat them."""


class CancellationQueue:
    """Collects ids and calls ``cancel`` with them on the main loop, which may be blocked for a while."""

    def __init__(
        self, to_main: threadsafe.CallQueue, cancel: Callable[[Link, tuple[str, ...]], None], most: int = MOST_WAITING
    ) -> None:
        self._to_main = to_main
        self._cancel = cancel
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[Link, dict[str, None]] = {}

    def __call__(self, link: Link, ids: tuple[str, ...]) -> None:
        """Add the ids of tasks or jobs to cancel. May be called from any thread."""
        with self._lock:
            first = not self._waiting
            waiting = self._waiting.setdefault(link, {})
            waiting.update(dict.fromkeys(ids[-self._most :]))
            too_many = len(waiting) - self._most
            for _ in range(too_many):
                del waiting[next(iter(waiting))]
        if max(too_many, len(ids) - self._most) > 0:
            link.faults.log(
                _log,
                logging.WARNING,
                "%s cancelled more tasks at once than this worker can queue (%d)",
                link.url,
                self._most,
                action="cancels_dropped",
            )
        if first:
            self._to_main.put(self._take)

    def _take(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for link, ids in waiting.items():
            self._cancel(link, tuple(ids))
