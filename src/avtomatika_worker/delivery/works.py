"""Undelivered results by the work they answer: when a task is handed out again, its result gets another id.

A result is sent under the newest known id. If the orchestrator calls it stale under every id, it is kept, on disk too:
the hand-out with a newer id either waits in the orchestrator's queue until this worker has a free slot (a worker
without one does not poll), or went to another worker, which may fail. Used from both loops.
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
from avtomatika_worker.protocol.messages import Task, TaskResult
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.skills.contract import CANCELLED

if TYPE_CHECKING:
    from avtomatika_worker.delivery.attempt import Delivery
    from avtomatika_worker.link.link import Link

MOST_IDS: Final = 4
"""Maximum number of ids to try a result under, the newest: as many as orchestrators give a task by default."""

MOST_KEPT: Final = 64
"""Maximum number of stale results to keep, the newest ..."""

MOST_BYTES: Final = 16 * 2**20
"""... and their total size in bytes."""


class Fate(enum.Enum):
    """What happens to a delivery that is not retried later."""

    TRY_NEXT = enum.auto()
    """Another id is to be tried at once."""
    KEPT = enum.auto()
    """It waits for its work to be handed out again."""
    SETTLED = enum.auto()
    """It has arrived, or is not wanted."""


class _UnderWay(msgspec.Struct, frozen=True):
    """A result that is being delivered, and the ids that it may be wanted under, the newest last.

    ``hand_outs`` are those that arrived since its delivery began.
    """

    delivery: Delivery
    ids: tuple[str, ...]
    hand_outs: tuple[Task, ...] = ()


class _Stale(msgspec.Struct, frozen=True):
    """A result that was refused as stale ``at`` a time of the orchestrator's, in Unix seconds."""

    delivery: Delivery
    at: float


class Works:
    """The results that may still be wanted under another id.

    ``max_age`` is the seconds for which one is kept; ``forget`` removes the row of one that is no longer kept.
    """

    def __init__(self, max_age: float, forget: Callable[[int | None], None]) -> None:
        self._max_age = max_age
        self._forget = forget
        self.on_missed: Callable[[Link, Task], None] = lambda _link, _task: None
        """Called, on any thread, with a hand-out that was not a retry: it came while the result was being accepted."""
        self._lock = threading.Lock()
        self._under_way: dict[WorkKey, _UnderWay] = {}
        self._stale: OrderedDict[WorkKey, _Stale] = OrderedDict()  # the oldest first
        self._bytes = 0

    def enter(self, delivery: Delivery, older_ids: Sequence[str] = ()) -> None:
        """Add a result that is about to be delivered, unless its task will be retried.

        It replaces a stale result of the same work, which has been done again.
        """
        result = delivery.message
        if not isinstance(result, TaskResult) or (key := _key_of(result)) is None:
            return
        with self._lock:
            self._under_way[key] = _UnderWay(delivery, (*older_ids, result.task_id)[-MOST_IDS:])
            older = self._stale.pop(key, None)
            if older is not None:
                self._bytes -= older.delivery.size
        if older is not None:
            self._forget(older.delivery.row)

    def known(self, key: WorkKey) -> Known | None:
        """Return what is known about the work of a hand-out."""
        with self._lock:
            if key in self._under_way:
                return Known(Stage.ENDED)
            stale = self._stale.get(key)
            return None if stale is None else Known(Stage.STALE, answered_at=stale.at)

    def add(self, key: WorkKey, task: Task, *, newest: bool) -> Delivery | None:
        """Assign the result of its work to a hand-out. Return the delivery if that has to be started again.

        ``newest``: no known id is newer.
        """
        with self._lock:
            under_way = self._under_way.get(key)
            if under_way is not None:
                others = tuple(each for each in under_way.ids if each != task.task_id)
                ids = (*others, task.task_id) if newest else (task.task_id, *others)
                hand_outs = (*under_way.hand_outs, task)
                self._under_way[key] = _UnderWay(under_way.delivery, ids[-MOST_IDS:], hand_outs[-MOST_IDS:])
                return None
            stale = self._stale.pop(key, None)
            if stale is None:
                return None
            self._bytes -= stale.delivery.size
            self._under_way[key] = _UnderWay(stale.delivery, (task.task_id,))
            return stale.delivery

    def addressed(self, delivery: Delivery, result: TaskResult) -> TaskResult:
        """Return the result under the newest id that was not refused."""
        if result.work is None:  # its task keeps its id
            return result
        with self._lock:
            under_way = self._entry(delivery, result)
            task_id = under_way.ids[-1] if under_way is not None else result.task_id
        return result if task_id == result.task_id else msgspec.structs.replace(result, task_id=task_id)

    def refused(self, delivery: Delivery, result: TaskResult, now: float) -> Fate:
        """Record that a result is stale under its id, and return what follows.

        ``now`` is the orchestrator's time in Unix seconds.
        """
        with self._lock:
            under_way = self._entry(delivery, result)
            if under_way is None:
                return Fate.SETTLED
            key, ids = _key_of(result), tuple(each for each in under_way.ids if each != result.task_id)
            if result.work is not None and ids:
                self._under_way[result.work] = msgspec.structs.replace(under_way, ids=ids)
                return Fate.TRY_NEXT
            if key is None or delivery.age > self._max_age:
                return Fate.SETTLED
            del self._under_way[key]
            self._stale[key] = _Stale(delivery, now)
            self._bytes += delivery.size
            gone = self._too_many()
        for each in gone:
            self._forget(each.row)
        return Fate.KEPT

    def accepted(self, delivery: Delivery, result: TaskResult) -> None:
        """Record that a result was accepted under its id: a newer id belongs to other work.

        A job may continue with a step of the same skill and params, which before 1.0b28 no number distinguishes from a
        retry. That step may arrive before the answer to the result that led to it.
        """
        if result.work is None:
            return
        with self._lock:
            under_way = self._entry(delivery, result)
            ids = () if under_way is None else under_way.ids
            if result.task_id in ids:  # otherwise it was dropped, as the oldest of too many
                ids = ids[ids.index(result.task_id) + 1 :]
            missed = [] if under_way is None else [each for each in under_way.hand_outs if each.task_id in ids]
        for task in missed:
            self.on_missed(delivery.link, task)

    def leave(self, delivery: Delivery) -> None:
        """Forget a result that is settled."""
        result = delivery.message
        if isinstance(result, TaskResult) and result.work is not None:
            with self._lock:
                if self._entry(delivery, result) is not None:
                    del self._under_way[result.work]

    def _entry(self, delivery: Delivery, result: TaskResult) -> _UnderWay | None:
        entry = None if result.work is None else self._under_way.get(result.work)
        return entry if entry is not None and entry.delivery is delivery else None

    def _too_many(self) -> Sequence[Delivery]:
        gone: list[Delivery] = []
        while len(self._stale) > MOST_KEPT or (self._bytes > MOST_BYTES and len(self._stale) > 1):
            _, stale = self._stale.popitem(last=False)
            self._bytes -= stale.delivery.size
            gone.append(stale.delivery)
        return gone


def _key_of(result: TaskResult) -> WorkKey | None:
    """Return the work of a result, if it may be wanted under another id."""
    if result.work is None or result.status == CANCELLED or is_retried(result):
        return None
    return result.work
