"""The orchestrator's records as JSON for the console."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from avtomatika_worker.devserver.console.task_logs import TaskLogs
from avtomatika_worker.devserver.faults import Fault
from avtomatika_worker.devserver.snapshots import JobRecord, JobState, Problem, RecordedCall, WorkerRecord
from avtomatika_worker.policy.estimate import seconds_left
from avtomatika_worker.protocol.coerce import as_object

_HEAVY: Final = ("params", "result", "metadata", "data_metadata", "costs")
_HINTS: Final = 4
_HINT: Final = 40


def job_row(job: JobRecord, shown: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a job for the list of tasks; ``shown`` is its `JobRecord.to_json` if already computed."""
    row = {name: value for name, value in (shown or job.to_json()).items() if name not in _HEAVY}
    return {**row, "number": job.number, "hint": _hint(job.params), "ends_at": _ends_at(job)}


def _ends_at(job: JobRecord) -> float | None:
    """Return when a running job will have ended, in Unix seconds, by the progress it has reported; None if unknown."""
    began, reported = job.handed_out_at, job.progress_at
    if job.state is not JobState.RUNNING or began is None or reported is None:
        return None
    whole = seconds_left(0.0, progress=job.progress.fraction, reported_at=reported - began, expected=None)
    return None if whole is None or job.progress.fraction >= 1 else began + whole


def _hint(params: dict[str, Any]) -> str:
    """Return a hint that distinguishes tasks of one skill; large params must cost nothing here."""
    parts: list[str] = []
    for name, value in params.items():
        if len(parts) == _HINTS:
            break
        if isinstance(value, str):
            text = value if len(value) <= _HINT else f"{value[:_HINT]}…"
        elif isinstance(value, int | float):
            text = str(value).lower() if isinstance(value, bool) else str(value)
        else:
            text = ("[…]" if isinstance(value, list) else "{…}") if value else "null" if value is None else "empty"
        parts.append(f"{name}: {text}")
    return ", ".join(parts)


def job_details(job: JobRecord, logs: TaskLogs) -> dict[str, Any]:
    """Return everything known about a job."""
    attempts = [
        {
            "task_id": received.message.get("task_id"),
            "status": received.message.get("status"),
            "error": received.message.get("error"),
            "answer": received.status,
            "reason": received.reason,
            "time": received.time,
        }
        for received in job.results_received
    ]
    return {
        **job_row(job),
        **job.to_json(),
        "cancel_confirmed": job.cancel_confirmed,
        "events": job.events,
        "event_times": job.event_times,
        "hand_outs": [
            {"task_id": each.task_id, "worker_id": each.worker_id, "time": each.time} for each in job.hand_outs
        ],
        "results": attempts,
        "logs": logs.of(job.job_id),
    }


def worker_view(worker: WorkerRecord, running: int, slots: int | None) -> dict[str, Any]:
    """Return a worker with its slots, of which so many are ``running``, and its last heartbeat."""
    registration, heartbeat = worker.registration, worker.last_heartbeat or {}
    capabilities = as_object(registration.get("capabilities"))
    return {
        **worker.to_json(),
        "slots": slots,
        "running": running,
        "polls": worker.polls,
        "heartbeats": worker.heartbeats_received,
        "websockets": worker.websockets,
        "hostname": capabilities.get("hostname"),
        "resources": registration.get("resources"),
        "hot_skills": heartbeat.get("hot_skills") or [],
        "hot_cache": heartbeat.get("hot_cache") or [],
        "software": registration.get("installed_software"),
    }


def call_view(call: RecordedCall) -> dict[str, Any]:
    """Return a worker's call and how it was answered."""
    return {"call": call.call, "time": call.time, "status": call.status, "fault": call.fault}


def problem_view(problem: Problem) -> dict[str, Any]:
    """Return a problem caused by a worker."""
    return {
        "call": problem.call,
        "worker_id": problem.worker_id,
        "status": problem.status,
        "problem": problem.text,
        "time": problem.time,
    }


def fault_views(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    """Return the pending faults."""
    return [
        {
            "call": fault.call,
            "kind": fault.kind,
            "left": None if fault.times is None else fault.times - fault.used,
            "status": fault.status if fault.kind in {"status", "html"} else None,
            "retry_after": fault.retry_after,
            "delay": fault.delay,
        }
        for fault in faults
    ]
