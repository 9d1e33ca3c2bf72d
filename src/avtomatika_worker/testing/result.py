"""The result of a task, as a value for tests to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.devserver import JobRecord, JobState, Progress
from avtomatika_worker.errors import TASK_ERRORS, TaskError, TransientError
from avtomatika_worker.protocol.coerce import as_number, as_object, as_text
from avtomatika_worker.protocol.messages import PROGRESS_EVENT
from avtomatika_worker.testing.local_storage import Storage

_STATUS_OF: Final = {JobState.FINISHED: "success", JobState.CANCELLED: "cancelled"}


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event that arrived: its ``type`` and its ``payload``."""

    type: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SeenError:
    """A failure's error: ``code`` is a code from the protocol, such as INVALID_INPUT_ERROR."""

    code: str
    message: str
    details: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillResult:
    """The result of a task.

    ``status`` is "success", one of the skill's own statuses, "failure" or "cancelled"; ``data`` is what the skill
    returned, empty unless it finished by itself; ``error`` is set for a failure. ``events`` (the skill's own)
    and ``progress`` are in the order they arrived. ``duration`` is in seconds, from the task's start to its end.
    ``files`` are those that ``data`` names, as local paths: ``data["pages"][0]["scan"]`` is ``files["pages[0].scan"]``.
    ``job`` is the orchestrator's record, for everything else.
    """

    skill: str
    status: str
    data: dict[str, Any]
    error: SeenError | None
    events: tuple[SeenEvent, ...]
    progress: tuple[Progress, ...]
    duration: float
    attempts: int
    costs: dict[str, Any]
    metadata: dict[str, Any]
    files: Mapping[str, Path]
    job: JobRecord = field(repr=False, compare=False)
    _storage: Storage = field(repr=False, compare=False)
    """Keeps the files from being deleted."""

    @property
    def ok(self) -> bool:
        """Whether the skill finished by itself: neither a failure nor cancelled."""
        return self.status not in {"failure", "cancelled"}

    def file(self, name: str) -> Path:
        """Return the path of a file by where ``data`` names it. Raises LookupError that lists the files."""
        if name not in self.files:
            raise LookupError(f"the data names no file at {name!r}; files: {', '.join(self.files) or 'none'}")
        return self.files[name]

    def event(self, event_type: str) -> SeenEvent:
        """Return the first event of a type. Raises LookupError that lists the events."""
        for each in self.events:
            if each.type == event_type:
                return each
        seen = ", ".join(each.type for each in self.events) or "none"
        raise LookupError(f"there was no event {event_type!r}; events: {seen}")

    def to_error(self) -> TaskError:
        """Return the error of a task that failed or was cancelled, as the skill might have raised it."""
        error = self.error or SeenError(TransientError.code, f"the task ended as {self.status}", {})
        return TASK_ERRORS.get(error.code, TransientError)(error.message, error.details)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values, for machines."""
        error = self.error
        return {
            "skill": self.skill,
            "status": self.status,
            "ok": self.ok,
            "data": self.data,
            "error": error and {"code": error.code, "message": error.message, "details": error.details},
            "events": [{"type": each.type, "payload": each.payload} for each in self.events],
            "progress": [{"progress": each.fraction, "message": each.message} for each in self.progress],
            "duration": round(self.duration, 6),
            "attempts": self.attempts,
            "costs": self.costs,
            "metadata": self.metadata,
            "job_id": self.job.job_id,
        }


def result_of(job: JobRecord, storage: Storage) -> SkillResult:
    """Read a job that has ended."""
    return SkillResult(
        skill=job.skill,
        status=_status(job),
        data=job.result or {},
        error=_error(job.error) if _STATUS_OF.get(job.state) is None else None,
        events=events_of(job),
        progress=progress_of(job),
        duration=max(0.0, (job.finished_at or 0.0) - (job.handed_out_at or job.submitted_at)),
        attempts=job.attempts,
        costs=job.costs or {},
        metadata=job.result_metadata or {},
        files=storage.files_in(job.result or {}),
        job=job,
        _storage=storage,
    )


def events_of(job: JobRecord) -> tuple[SeenEvent, ...]:
    """Return the skill's own events that have arrived so far."""
    return tuple(
        SeenEvent(event["event_type"], as_object(event.get("payload")))
        for event in job.events
        if event["event_type"] != PROGRESS_EVENT
    )


def progress_of(job: JobRecord) -> tuple[Progress, ...]:
    """Return the progress that has arrived so far."""
    payloads = (as_object(e.get("payload")) for e in job.events if e["event_type"] == PROGRESS_EVENT)
    return tuple(Progress(as_number(p.get("progress")) or 0.0, as_text(p.get("message")) or "") for p in payloads)


def _status(job: JobRecord) -> str:
    """Return the status; a job ended by its orchestrator (at a deadline) has none from the worker."""
    if job.state is JobState.FINISHED:
        return job.result_status or "success"
    return _STATUS_OF.get(job.state, "failure")


def _error(error: dict[str, Any] | None) -> SeenError:
    reported = error or {}
    code, message = as_text(reported.get("code")) or "TRANSIENT_ERROR", as_text(reported.get("message")) or ""
    return SeenError(code, message, as_object(reported.get("details")))
