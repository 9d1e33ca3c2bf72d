"""Jobs waiting for a worker: the oldest of the highest priority first, found without a scan."""

from __future__ import annotations

import heapq
from collections.abc import Collection

from avtomatika_worker.devserver.snapshots import JobRecord, JobState

_Entry = tuple[float, int, int, JobRecord]


class JobQueue:
    """Has one heap per skill, and one per skill and worker for jobs that only one worker may get.

    A cancelled job stays in its heap until it reaches the top, and is dropped there.
    """

    def __init__(self) -> None:
        self._heaps: dict[tuple[str, str | None], list[_Entry]] = {}
        self._pushes = 0

    def push(self, job: JobRecord) -> None:
        """Add a queued job."""
        self._pushes += 1  # nothing after this in the tuple is ever compared
        entry = (-job.priority, job.number, self._pushes, job)
        heapq.heappush(self._heaps.setdefault((job.skill, job.pinned_to), []), entry)

    def pop(self, skills: Collection[str], worker_id: str) -> JobRecord | None:
        """Take the first job for a worker and its skills, or return None."""
        best: _Entry | None = None
        best_key: tuple[str, str | None] | None = None
        for key in self._keys(skills, worker_id):
            top = self._top(key)
            if top is not None and (best is None or top[:2] < best[:2]):
                best, best_key = top, key
        if best is None or best_key is None:
            return None
        heapq.heappop(self._heaps[best_key])
        return best[3]

    def _keys(self, skills: Collection[str], worker_id: str) -> list[tuple[str, str | None]]:
        if len(self._heaps) <= 2 * len(skills):
            return [key for key in self._heaps if key[0] in skills and key[1] in {None, worker_id}]
        wanted = [(skill, owner) for skill in skills for owner in (None, worker_id)]
        return [key for key in wanted if key in self._heaps]

    def _top(self, key: tuple[str, str | None]) -> _Entry | None:
        """Return the first entry still waiting, dropping those before it."""
        heap = self._heaps[key]
        while heap:
            if heap[0][3].state is JobState.QUEUED:
                return heap[0]
            heapq.heappop(heap)
        del self._heaps[key]
        return None
