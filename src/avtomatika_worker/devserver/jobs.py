"""The jobs: queued, handed out, ended, and remembered for a while."""

from __future__ import annotations

import heapq
import itertools
import math
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from avtomatika_worker.devserver.changes import Hub
from avtomatika_worker.devserver.job_queue import JobQueue
from avtomatika_worker.devserver.releases import Release
from avtomatika_worker.devserver.snapshots import HandOut, JobRecord, JobState, Progress
from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import is_list, is_mapping, is_tuple
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.skills.jsonable import to_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A client's request. ``deadline`` is in Unix seconds."""

    skill: str
    params: Mapping[str, Any]
    priority: float = 0.0
    deadline: float | None = None
    metadata: Mapping[str, Any] | None = None
    tracing_context: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None
    security: Mapping[str, Any] | None = None
    params_metadata: Mapping[str, Any] | None = None
    job_id: str | None = None
    worker_id: str | None = None


_SENT: Final = (
    "params",
    "priority",
    "deadline",
    "metadata",
    "tracing_context",
    "policy",
    "security",
    "params_metadata",
)


class JobBook:
    """Every known job, and its four transitions: `add`, `hand_out`, `put_back` and `end`."""

    def __init__(self, release: Release, hub: Hub, *, history: int) -> None:
        self._release = release
        self._hub = hub
        self._history = history
        self._ended: deque[str] = deque()
        self._queue = JobQueue()
        self._numbers = itertools.count(1)
        self._later: list[tuple[float, int, JobRecord]] = []
        self._pushes = 0
        self._ended_by_state: Counter[JobState] = Counter()
        self.jobs: dict[str, JobRecord] = {}
        self.by_task: dict[str, JobRecord] = {}
        self.running: dict[str, dict[str, JobRecord]] = {}
        """worker_id → job_id → job, in the order they were handed out."""
        self.when_scheduled: Callable[[], None] = lambda: None
        """Called when `next_due` may have changed."""
        self.when_ended: Callable[[JobRecord], None] = lambda _job: None
        """Called once for each job, when it has ended."""
        self.forgotten: int = 0
        """How many ended jobs are no longer in `jobs`."""

    def add(self, new: NewJob, now: float) -> JobRecord:
        """Queue a job. Raises ValueError for values that cannot be sent to a worker."""
        job_id = new.job_id or str(uuid.uuid4())
        if job_id in self.jobs:
            raise ValueError(f"there is already a job {job_id!r}")
        job = JobRecord(
            number=next(self._numbers),
            job_id=job_id,
            skill=new.skill,
            pinned_to=new.worker_id,
            submitted_at=now,
            **self._plain({name: getattr(new, name) for name in _SENT}),
        )
        self.jobs[job_id] = job
        self._queue.push(job)
        if job.deadline is not None:
            self.look_at(job, job.deadline)
        self.changed(job, "queued", now)
        return job

    def _plain(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a copy in plain JSON that this release can send."""
        try:
            if not all(math.isfinite(values[name] or 0) for name in ("priority", "deadline")):
                raise ValueError("priority and deadline must be finite numbers")
            given = to_plain(values)
            written = orjson.dumps(given)
            _check_finite(given, "$")  # it was omitted: a default would take its place
            plain: dict[str, Any] = orjson.loads(written)
            if not self._release.tasks_keep_nulls:
                canonical_bytes(plain, self._release.dialect)
        except (TypeError, OverflowError, UnsendableValueError) as error:
            raise ValueError(f"it cannot be sent to a worker: {error}") from None
        return plain

    def next_for(self, worker_id: str, skills: Collection[str]) -> JobRecord | None:
        """Remove the next job for a worker from the queue."""
        return self._queue.pop(skills, worker_id)

    def hand_out(self, job: JobRecord, worker_id: str, now: float) -> None:
        """Record that a worker now has the job."""
        job.state, job.worker_id, job.handed_out_at = JobState.RUNNING, worker_id, now
        job.attempts += 1
        job.task_id = job.job_id if self._release.job_id_is_task_id else f"task-{uuid.uuid4()}"
        job.hand_outs.append(HandOut(job.task_id, worker_id, now))
        self.by_task[job.task_id] = job
        self.running.setdefault(worker_id, {})[job.job_id] = job
        self.changed(job, "running", now)

    def put_back(self, job: JobRecord, now: float, delay: float = 0.0) -> None:
        """Queue a job again, after ``delay`` seconds."""
        self._withdraw(job)
        job.state, job.progress, job.progress_at = JobState.QUEUED, Progress(), None
        self.changed(job, "retrying", now)
        if delay > 0:
            self.look_at(job, now + delay)
        else:
            self._queue.push(job)

    def end(self, job: JobRecord, state: JobState, now: float) -> None:
        """Put a job into a final state; the oldest ended jobs beyond the history's length are forgotten."""
        self._withdraw(job)
        job.end(state, now)
        self._ended.append(job.job_id)
        self._ended_by_state[state] += 1
        while len(self._ended) > self._history:
            self.jobs.pop(self._ended.popleft(), None)
            self.forgotten += 1
        self.when_ended(job)
        self.changed(job, state.value, now)

    def totals(self) -> dict[JobState, int]:
        """Return how many jobs there have been so far, by their current state, the forgotten ones included."""
        running = sum(map(len, self.running.values()))
        ended = self._ended_by_state
        queued = len(self.jobs) + self.forgotten - ended.total() - running
        return {JobState.QUEUED: queued, JobState.RUNNING: running, **ended}

    def _withdraw(self, job: JobRecord) -> None:
        if job.task_id is not None:
            self.by_task.pop(job.task_id, None)
        if job.worker_id is not None and (mine := self.running.get(job.worker_id)) is not None:
            mine.pop(job.job_id, None)
            if not mine:
                del self.running[job.worker_id]

    def changed(self, job: JobRecord, kind: str, now: float) -> None:
        """Notify the listeners."""
        self._hub.publish(kind, now, job.to_json, job=job, worker_id=job.worker_id)

    def look_at(self, job: JobRecord, when: float) -> None:
        """Make `due` return the job at a given time: its deadline, or the end of its retry delay."""
        self._pushes += 1  # so that jobs are never compared
        heapq.heappush(self._later, (when, self._pushes, job))
        self.when_scheduled()

    def due(self, now: float) -> Iterator[JobRecord]:
        """Return the jobs whose time has come, once per scheduled time."""
        while self._later and self._later[0][0] <= now:
            yield heapq.heappop(self._later)[2]

    @property
    def next_due(self) -> float | None:
        """When `due` next has a job."""
        return self._later[0][0] if self._later else None

    def resume(self, job: JobRecord) -> None:
        """Queue a job whose retry delay is over."""
        self._queue.push(job)


def _check_finite(value: object, path: str) -> None:
    """Raise `UnsendableValueError` for NaN and infinities, which orjson writes as nulls."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UnsendableValueError(path, f"{value} does not exist in JSON")
    if is_mapping(value):
        for key, item in value.items():
            _check_finite(item, f"{path}.{key}")
    elif is_list(value) or is_tuple(value):
        for index, item in enumerate(value):
            _check_finite(item, f"{path}[{index}]")
