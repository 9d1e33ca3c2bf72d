"""Undelivered results by the work that they answer: a task that is handed out again gives its result another id.

A result goes out under the newest id that is known. One that the orchestrator calls stale under every id is kept, on
disk too: the hand-out under the newer id waits in a queue over there until this worker has a slot free for it (a worker
whose slots are all taken does not poll), or went to another worker, which may fail. Used from both loops.
"""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from avtomatika_worker.execution.report import is_retried
from avtomatika_worker.policy.known_work import Known, Stage
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.skills.contract import CANCELLED

if TYPE_CHECKING:
    from avtomatika_worker.delivery.attempt import Delivery

MOST_KEPT: Final = 64
"""Stale results that are kept at most ..."""

MOST_BYTES: Final = 16 * 2**20
"""... and their bytes; of more, the newest."""


class Refused(enum.Enum):
    """What follows from an orchestrator's word that a result is stale."""

    TRY_NEXT = enum.auto()
    """There is another id to try."""
    KEPT = enum.auto()
    """It waits for its work to be handed out again."""
    SETTLED = enum.auto()
    """Nobody wants it."""


class Works:
    """The results that may still be wanted under another id.

    ``max_age`` is how many seconds one is kept; ``forget`` removes the row of one that is kept no longer.
    """

    def __init__(self, max_age: float, forget: Callable[[int | None], None]) -> None:
        self._max_age = max_age
        self._forget = forget
        self._lock = threading.Lock()
        self._under_way: dict[WorkKey, Delivery] = {}
        self._stale: OrderedDict[WorkKey, Delivery] = OrderedDict()  # the oldest first
        self._bytes = 0

    def enter(self, delivery: Delivery) -> None:
        """Take in a result that is about to be delivered; one after which its task is tried again does not count.

        It takes the place of a stale one of the same work, which has been done again.
        """
        key = _key_of(delivery)
        if key is None:
            return
        with self._lock:
            self._under_way[key] = delivery
            older = self._stale.pop(key, None)
            if older is not None:
                self._bytes -= older.size
        if older is not None:
            self._forget(older.row)

    def known(self, key: WorkKey) -> Known | None:
        """Return what is known of the work of a hand-out."""
        with self._lock:
            if key in self._under_way:
                return Known(Stage.ENDED)
            stale = self._stale.get(key)
            return None if stale is None else Known(Stage.STALE, answered_at=stale.stale_at)

    def add(self, key: WorkKey, task_id: str, *, newest: bool) -> Delivery | None:
        """Let a hand-out have the result of its work. Return the delivery when it has to be begun again.

        ``newest``: none of the ids that are known is newer.
        """
        with self._lock:
            delivery = self._under_way.get(key)
            if delivery is not None:
                if task_id not in delivery.task_ids:
                    delivery.task_ids.insert(len(delivery.task_ids) if newest else 0, task_id)
                return None
            delivery = self._stale.pop(key, None)
            if delivery is not None:
                self._bytes -= delivery.size
                self._under_way[key] = delivery
                delivery.task_ids = [task_id]
            return delivery

    def addressed(self, delivery: Delivery, result: TaskResult) -> TaskResult:
        """Return the result under the newest id that was not refused."""
        with self._lock:
            task_id = delivery.task_ids[-1] if delivery.task_ids else result.task_id
        return result if task_id == result.task_id else msgspec.structs.replace(result, task_id=task_id)

    def refused(self, delivery: Delivery, task_id: str, now: float) -> Refused:
        """Take note that a result is stale under an id, and return what follows.

        ``now`` is the orchestrator's time in Unix seconds.
        """
        key = _key_of(delivery)
        with self._lock:
            if task_id in delivery.task_ids:
                delivery.task_ids.remove(task_id)
            if delivery.task_ids:
                return Refused.TRY_NEXT
            if key is None or self._under_way.get(key) is not delivery or delivery.age > self._max_age:
                return Refused.SETTLED
            del self._under_way[key]
            delivery.stale_at, delivery.times_kept = now, delivery.times_kept + 1
            self._stale[key] = delivery
            self._bytes += delivery.size
            gone = self._too_many()
        for each in gone:
            self._forget(each.row)
        return Refused.KEPT

    def leave(self, delivery: Delivery) -> None:
        """Forget a result: it is settled, or another one took its place."""
        key = delivery.message.work if isinstance(delivery.message, TaskResult) else None
        if key is not None:
            with self._lock:
                if self._under_way.get(key) is delivery:
                    del self._under_way[key]

    def _too_many(self) -> Sequence[Delivery]:
        gone: list[Delivery] = []
        while len(self._stale) > MOST_KEPT or (self._bytes > MOST_BYTES and len(self._stale) > 1):
            _, delivery = self._stale.popitem(last=False)
            self._bytes -= delivery.size
            gone.append(delivery)
        return gone


def _key_of(delivery: Delivery) -> WorkKey | None:
    """Return the work of a result that may be wanted under another id."""
    result = delivery.message
    if not isinstance(result, TaskResult) or result.status == CANCELLED or is_retried(result):
        return None
    return result.work
