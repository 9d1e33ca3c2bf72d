"""Distinguishes a repeated task from a new one with the same id, and keeps the most recent results."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

import msgspec

from avtomatika_worker.execution.report import is_retried
from avtomatika_worker.protocol.messages import CanonicalData, Task, TaskResult

REMEMBERED: Final = 64
"""Maximum number of results to keep ..."""

LARGEST: Final = 64 * 1024
"""... and of bytes in each."""

_ENCODE_ERRORS: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class RecentResults:
    """The last results by orchestrator and task.

    An id alone does not identify a task: 1.0b21 hands out a failed task again under its id, and up to 1.0b9 the steps
    of a job share an id. So the time of the hand-out counts as well (up to 1.0b9, which has no times, the params), and
    a failure that orchestrators retry never counts as finished.
    """

    def __init__(self) -> None:
        self._results: OrderedDict[tuple[str, str], tuple[Hashable, TaskResult | None]] = OrderedDict()

    def remember(self, url: str, task: Task, result: TaskResult) -> None:
        """Keep the result of a task."""
        key = (url, task.task_id)
        self._results.pop(key, None)
        if is_retried(result):
            return
        try:
            kept = result if _size(result) <= LARGEST else None
        except _ENCODE_ERRORS:
            return  # it cannot be sent either, so a failure will replace it
        self._results[key] = (_fingerprint(task), kept)
        if len(self._results) > REMEMBERED:
            self._results.popitem(last=False)

    def knows(self, url: str, task: Task) -> bool:
        """Return whether exactly this task has finished here."""
        entry = self._results.get((url, task.task_id))
        return entry is not None and entry[0] == _fingerprint(task)

    def find(self, url: str, task: Task) -> TaskResult | None:
        """Return the result of exactly this task, or None if there is none or it was too large to keep."""
        entry = self._results.get((url, task.task_id))
        return entry[1] if entry is not None and entry[0] == _fingerprint(task) else None


def _size(result: TaskResult) -> int:
    """Return a result's size in bytes. Most consist only of their data, which are already encoded."""
    if isinstance(result.data, CanonicalData) and (result.is_plain or len(result.data.json) > LARGEST):
        return len(result.data.json)
    return len(msgspec.msgpack.encode(result))


def _fingerprint(task: Task) -> Hashable:
    if isinstance(task.timestamp, int | float):
        return task.type, task.timestamp
    try:
        return task.type, zlib.crc32(msgspec.msgpack.encode(task.params))
    except _ENCODE_ERRORS:
        return object()  # equal to nothing
