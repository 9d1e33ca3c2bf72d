"""The embedded orchestrator's records, as values for tests and people to read.

Times are Unix seconds of the orchestrator's own clock. Only the orchestrator changes a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import orjson

_EVENTS_KEPT: Final = 1000
_HEARTBEATS_KEPT: Final = 200


class JobState(enum.StrEnum):
    """A job's state. The status that a skill ended with is `JobRecord.result_status`."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more can happen to the job."""
        return self not in {JobState.QUEUED, JobState.RUNNING}


class Progress(NamedTuple):
    """The last progress event: 0…1 and a message."""

    fraction: float = 0.0
    message: str = ""


class ReceivedResult(NamedTuple):
    """A result message as received, and the answer: "accepted", or "ignored" with its reason."""

    message: dict[str, Any]
    status: Literal["accepted", "ignored"]
    reason: str | None
    time: float


class HandOut(NamedTuple):
    """An attempt: the task as it was handed out, to which worker, and when."""

    task_id: str
    worker_id: str
    time: float


@dataclass(eq=False, slots=True, kw_only=True)
class JobRecord:
    """A job, its one task and everything known about it. ``await job.done()`` waits for its end.

    ``task_id`` is that of the latest attempt, ``worker_id`` the worker that had it, ``pinned_to`` the only worker that
    may get it. ``result`` is the data of the accepted result, ``error`` the latest failure's error.
    """

    number: int
    job_id: str
    skill: str
    params: dict[str, Any]
    priority: float = 0.0
    deadline: float | None = None
    metadata: dict[str, Any] | None = None
    tracing_context: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    security: dict[str, Any] | None = None
    params_metadata: dict[str, Any] | None = None
    pinned_to: str | None = None
    submitted_at: float
    state: JobState = JobState.QUEUED
    task_id: str | None = None
    worker_id: str | None = None
    attempts: int = 0
    failures: int = 0
    handed_out_at: float | None = None
    finished_at: float | None = None
    progress: Progress = field(default_factory=Progress)
    progress_at: float | None = None
    result: dict[str, Any] | None = None
    result_status: str | None = None
    result_metadata: dict[str, Any] | None = None
    data_metadata: dict[str, Any] | None = None
    costs: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    cancel_confirmed: bool = False
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    event_times: list[float] = field(default_factory=list[float])
    results_received: list[ReceivedResult] = field(default_factory=list[ReceivedResult])
    hand_outs: list[HandOut] = field(default_factory=list[HandOut])
    _waiting: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]], repr=False)

    async def done(self, timeout: float | None = 30.0) -> JobRecord:
        """Wait until the job is in a final state and return it.

        ``timeout`` is in seconds, None waits indefinitely. Raises TimeoutError with the job's state.
        """
        if not self.state.final:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                async with asyncio.timeout(timeout):
                    await future
            except TimeoutError:
                raise TimeoutError(f"after {timeout} s {self.describe()}") from None
            finally:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(future)
        return self

    def describe(self) -> str:
        """Describe the job's state in one sentence."""
        text = f"job {self.job_id} ({self.skill}) is {self.state.value}, attempts: {self.attempts}"
        return f"{text}, last error: {self.error}" if self.error else text

    def end(self, state: JobState, now: float) -> None:
        """Enter a final state and wake the waiters."""
        self.state, self.finished_at = state, now
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def add_event(self, event: dict[str, Any], now: float) -> None:
        """Remember an event and when it came; of very many, only the latest."""
        self.events.append(event)
        self.event_times.append(now)
        if len(self.events) > _EVENTS_KEPT:
            del self.events[0], self.event_times[0]

    def to_json(self) -> dict[str, Any]:
        """Return the record as the client API shows it."""
        return {
            "job_id": self.job_id,
            "task_id": self.task_id,
            "skill": self.skill,
            "state": self.state.value,
            "status": self.result_status,
            "params": self.params,
            "result": self.result,
            "error": self.error,
            "progress": {"progress": self.progress.fraction, "message": self.progress.message},
            "priority": self.priority,
            "deadline": self.deadline,
            "metadata": self.metadata,
            "attempts": self.attempts,
            "worker_id": self.worker_id,
            "costs": self.costs,
            "data_metadata": self.data_metadata,
            "submitted_at": self.submitted_at,
            "handed_out_at": self.handed_out_at,
            "finished_at": self.finished_at,
        }


@dataclass(eq=False, slots=True, kw_only=True)
class WorkerRecord:
    """A registered worker, as described by its registration and its heartbeats.

    ``skills`` is its catalog by name, ``available`` the names it can start now, ``hot`` those it has loaded,
    ``websockets`` whether a heartbeat turned on real-time commands, ``connected`` whether a WebSocket is open,
    ``polls`` the number of waiting polls, ``full_sync`` whether the next heartbeat is asked for the catalog.
    """

    worker_id: str
    registration: dict[str, Any]
    registered_count: int
    registered_at: float
    last_seen: float
    status: str = "idle"
    skills: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    available: frozenset[str] = frozenset()
    hot: frozenset[str] = frozenset()
    skills_hash: str | None = None
    full_sync: bool = False
    last_heartbeat: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    heartbeats: deque[dict[str, Any]] = field(default_factory=lambda: deque[dict[str, Any]](maxlen=_HEARTBEATS_KEPT))
    heartbeats_received: int = 0
    websockets: bool = False
    connected: bool = False
    polls: int = 0

    @property
    def takes_tasks(self) -> bool:
        """Whether its polls may be answered with tasks."""
        return self.status not in {"draining", "offline"}

    def to_json(self) -> dict[str, Any]:
        """Return the record as the client API shows it."""
        heartbeat = self.last_heartbeat or {}
        return {
            "worker_id": self.worker_id,
            "worker_type": self.registration.get("worker_type"),
            "status": self.status,
            "skills": sorted(self.skills),
            "available_skills": sorted(self.available),
            "current_tasks": heartbeat.get("current_tasks") or [],
            "usage": self.usage,
            "connected": self.connected,
            "registered_at": self.registered_at,
            "registered_count": self.registered_count,
            "last_seen": self.last_seen,
        }


@dataclass(eq=False, slots=True, kw_only=True)
class RecordedCall:
    """A worker's call (``call``: register, poll, heartbeat, result, event, token, ws) and its answer.

    ``status`` is 0 if there was no answer. ``fault`` is the kind of the injected fault it met. The token is masked.
    """

    call: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    time: float
    status: int = 0
    reply: bytes = b""
    fault: str | None = None

    @property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError if it is not JSON."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a worker did that an orchestrator refuses, or that a developer should know about.

    ``status`` is that of the answer: 200 if the message was accepted anyway.
    """

    call: str
    worker_id: str | None
    status: int
    text: str
    time: float

    def __str__(self) -> str:
        who = f" of {self.worker_id}" if self.worker_id else ""
        return f"{self.call}{who}: {self.text} (answered {self.status})"
