"""The orchestrator's behavior (RXON.md, "Behaviour") without HTTP: dispatch, results, cancellation, leases.

Every method is synchronous and takes effect at once; messages arrive here already verified. Time moves only in `tick`
and by the ``clock``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

from avtomatika_worker.devserver.changes import Hub
from avtomatika_worker.devserver.contracts import Contracts
from avtomatika_worker.devserver.jobs import JobBook, NewJob
from avtomatika_worker.devserver.orchestrator_settings import OrchestratorSettings
from avtomatika_worker.devserver.releases import Release
from avtomatika_worker.devserver.snapshots import JobRecord, JobState, Problem, Progress, ReceivedResult, WorkerRecord
from avtomatika_worker.errors import ContractViolationError
from avtomatika_worker.protocol.coerce import as_number, as_object, as_text, as_texts
from avtomatika_worker.protocol.messages import PROGRESS_EVENT

_NOT_RETRIED: Final = {
    "PERMANENT_ERROR": JobState.QUARANTINED,
    "SECURITY_ERROR": JobState.QUARANTINED,
    "DEPENDENCY_ERROR": JobState.QUARANTINED,
    "CONTRACT_VIOLATION_ERROR": JobState.QUARANTINED,
    "INVALID_INPUT_ERROR": JobState.FAILED,
    "INTEGRITY_MISMATCH_ERROR": JobState.FAILED,
}
_DEADLINE: Final = {"code": "TIMEOUT_ERROR", "message": "the deadline passed"}
_TASK_TIMEOUT: Final = {"code": "TIMEOUT_ERROR", "message": "no result came within the orchestrator's task timeout"}
_PROBLEMS_KEPT: Final = 1000
_RESULTS_KEPT: Final = 100


class ResultMetadataError(Exception):
    """Result metadata for a task that had none: orchestrators fail permanently with 500 (RXON.md, Behaviour 6)."""


class Orchestrator:
    """The whole state, and the effect of each message on it."""

    def __init__(self, release: Release, settings: OrchestratorSettings, clock: Callable[[], float], hub: Hub) -> None:
        self._release = release
        self._settings = settings
        self._clock = clock
        self._hub = hub
        self._registrations: Counter[str] = Counter()
        self.contracts: Contracts = Contracts()
        self.book: JobBook = JobBook(release, hub, history=settings.history)
        self.workers: dict[str, WorkerRecord] = {}
        self.problems: deque[Problem] = deque(maxlen=_PROBLEMS_KEPT)
        self.when_ready: Callable[[str | None], None] = lambda _worker_id: None
        """Called when a waiting poll may now be served: of this worker, or of any."""

    def problem(self, call: str, worker_id: str | None, status: int, text: str) -> None:
        """Record a problem."""
        problem = Problem(call, worker_id, status, text, self._clock())
        self.problems.append(problem)
        data = {"call": call, "worker_id": worker_id, "status": status, "problem": text}
        self._hub.publish("problem", problem.time, lambda: data, worker_id=worker_id)

    # ------------------------------------------------------------------------------------------- workers

    def register(self, message: dict[str, Any]) -> WorkerRecord:
        """Accept a registration."""
        worker_id, now = message["worker_id"], self._clock()
        self._registrations[worker_id] += 1
        old = self.workers.get(worker_id)
        worker = WorkerRecord(
            worker_id=worker_id,
            registration=message,
            registered_count=self._registrations[worker_id],
            registered_at=now,
            last_seen=now,
        )
        if old is not None:
            worker.heartbeats, worker.last_heartbeat, worker.usage = old.heartbeats, old.last_heartbeat, old.usage
            worker.heartbeats_received = old.heartbeats_received
        self.workers[worker_id] = worker
        self._take_catalogue("register", worker, message)
        for text in self._missing_containers(message):
            self.problem("register", worker_id, 200, text)
        self._hub.publish("worker_registered", now, worker.to_json, worker_id=worker_id)
        self.when_ready(worker_id)
        return worker

    def _missing_containers(self, message: dict[str, Any]) -> list[str]:
        if not self._release.empty_containers_needed:
            return []
        needed = ("installed_software", "installed_artifacts", "resources", "capabilities")
        missing = [name for name in needed if message.get(name) is None]
        if as_object(message.get("capabilities")).get("cost_per_skill") is None:
            missing.append("capabilities.cost_per_skill")
        return [f"{name} is missing: 1.0b7 cannot dispatch to this worker (send it empty)" for name in missing]

    def _take_catalogue(self, call: str, worker: WorkerRecord, message: dict[str, Any]) -> None:
        """Take ``supported_skills`` and ``available_skills`` from a registration or a heartbeat."""
        catalogue, skills_hash = message.get("supported_skills"), message.get("skills_hash")
        if catalogue is not None:
            worker.skills_hash, worker.full_sync = skills_hash, False
            worker.skills = {skill["name"]: skill for skill in catalogue}
            for skill in catalogue:
                for text in self.contracts.schema_problems(skill):
                    self.problem(call, worker.worker_id, 200, text)
        elif skills_hash is not None and skills_hash != worker.skills_hash:
            worker.full_sync = True
        available = message.get("available_skills")
        if available is not None and not self._release.catalogue_is_availability:
            worker.available = frozenset(available)
        elif catalogue is not None:
            worker.available = frozenset(worker.skills)

    def heartbeat(self, message: dict[str, Any]) -> dict[str, Any]:
        """Accept a heartbeat and return its answer's fields beyond "ok": none for an unknown worker."""
        worker, now = self.workers.get(message["worker_id"]), self._clock()
        if worker is None:
            return {}
        worker.last_seen = now
        worker.last_heartbeat = message
        worker.usage = message.get("usage") or worker.usage  # fields missing from a heartbeat stay as they were
        worker.heartbeats.append(message)
        worker.heartbeats_received += 1
        before, worker.status = worker.status, message["status"]
        if (hot := message.get("hot_skills")) is not None:  # names; whole skills up to 1.0b8
            worker.hot = frozenset(each if isinstance(each, str) else each["name"] for each in hot)
        websockets = as_object(message.get("capabilities")).get("websockets")
        if websockets is not None:
            worker.websockets = websockets is True
        self._take_catalogue("heartbeat", worker, message)
        if worker.status != before:
            self._hub.publish("worker_status", now, worker.to_json, worker_id=worker.worker_id)
        else:
            self._hub.touch()
        self.when_ready(worker.worker_id)
        answer: dict[str, Any] = {}
        if cancel := self._ids_to_cancel(worker.worker_id, as_texts(message.get("current_tasks"))):
            answer["cancel_task_ids"] = cancel
        if worker.full_sync:
            answer["require_full_sync"] = True
        return answer

    def _ids_to_cancel(self, worker_id: str, ids: Collection[str]) -> list[str]:
        """Look up every id as a job id, as orchestrators do (RXON.md, Behaviour 3)."""
        found: list[str] = []
        for id_ in ids:
            job = self.book.jobs.get(id_)
            if job is not None:
                if job.state is JobState.CANCELLED:
                    found.append(id_)
                continue
            if id_ in self.book.by_task:
                self.problem("heartbeat", worker_id, 200, f"current_tasks lists the task id {id_}: list job ids")
            if self._release.unknown_ids_are_stale:
                found.append(id_)
        return found

    def forget_workers(self) -> None:
        """Forget the workers without notifying them."""
        for worker_id in list(self.workers):
            self._lose(worker_id)

    def _lose(self, worker_id: str) -> None:
        worker = self.workers.pop(worker_id)
        self._hub.publish("worker_lost", self._clock(), worker.to_json, worker_id=worker_id)

    def connected(self, worker_id: str, *, connected: bool) -> None:
        """Record that a worker's WebSocket was opened or closed."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.connected = connected
            kind = "worker_connected" if connected else "worker_disconnected"
            self._hub.publish(kind, self._clock(), worker.to_json, worker_id=worker_id)

    def skill(self, name: str) -> dict[str, Any] | None:
        """Return the contract that a worker registered for a skill."""
        return next((worker.skills[name] for worker in self.workers.values() if name in worker.skills), None)

    # ------------------------------------------------------------------------------------------- jobs

    def submit(self, new: NewJob) -> JobRecord:
        """Queue a job. Raises ValueError for values that cannot be sent to a worker."""
        job = self.book.add(new, self._clock())
        self.when_ready(None)
        return job

    def take(self, worker_id: str, skills: Collection[str] | None) -> JobRecord | None:
        """Hand out the next job for a worker's poll; ``skills`` are the names in the poll's query, if any."""
        worker, now = self.workers.get(worker_id), self._clock()
        if worker is None or not worker.takes_tasks:
            return None
        self._run_due(now)
        wanted = worker.available if skills is None else worker.available.intersection(skills)
        job = self.book.next_for(worker_id, wanted)
        if job is not None:
            self.book.hand_out(job, worker_id, now)
            if self._settings.reassign_running:
                self.book.look_at(job, now + self._settings.task_timeout)
        return job

    def hot_skills(self, worker_id: str) -> frozenset[str]:
        """Return the skills that a worker announces as hot."""
        worker = self.workers.get(worker_id)
        return frozenset() if worker is None else worker.hot

    def cancel(self, job_id: str) -> JobRecord | None:
        """Cancel a job that has not ended; return None if there is no such job."""
        job = self.book.jobs.get(job_id)
        if job is not None and not job.state.final:
            self.book.end(job, JobState.CANCELLED, self._clock())
        return job

    def result(self, message: dict[str, Any]) -> ReceivedResult:
        """Accept a result. Raises `ResultMetadataError`."""
        now = self._clock()
        self._run_due(now)
        job = self.book.jobs.get(message["job_id"])
        reason = self._why_ignored(job, message)
        received = ReceivedResult(message, "ignored" if reason else "accepted", reason, now)
        if job is None:
            return received
        if reason is None and message.get("metadata") and job.metadata is None:
            raise ResultMetadataError
        job.results_received.append(received)
        del job.results_received[:-_RESULTS_KEPT]
        if reason is None:
            self._accept(job, message, now)
        else:
            self.book.changed(job, "result_ignored", now)
        return received

    def _why_ignored(self, job: JobRecord | None, message: dict[str, Any]) -> str | None:
        if job is None:
            return "job_not_found"
        current = message["task_id"] == job.task_id
        ours = current and message["worker_id"] == job.worker_id
        if job.state is JobState.CANCELLED:
            if job.cancel_confirmed:
                return "job_already_terminated"
            return None if ours and message.get("status") == "cancelled" else "job_cancelled"
        if job.error is _DEADLINE:
            return "deadline_exceeded"
        if not current:
            return "stale_task"
        if job.state.final:
            return "job_already_terminated"
        if job.state is JobState.QUEUED and not self._still_counts(job):
            return "stale_task"
        return None if ours else "worker_mismatch"

    def _still_counts(self, job: JobRecord) -> bool:
        """Whether a late result counts before the next attempt: where that keeps the task's id."""
        return self._release.job_id_is_task_id and job.error is _TASK_TIMEOUT

    def _accept(self, job: JobRecord, message: dict[str, Any], now: float) -> None:
        """Apply an accepted result."""
        broken = self._broken_data(job, message)
        status = "failure" if broken else message.get("status") or "success"
        job.result_status = status
        job.costs, job.data_metadata = message.get("costs"), message.get("data_metadata")
        job.result_metadata = message.get("metadata")
        if status == "failure":
            self._failed(job, broken or as_object(message.get("error")), now)
        elif status == "cancelled":
            job.cancel_confirmed = True
            if job.state is JobState.CANCELLED:
                self.book.changed(job, "cancelled", now)
            else:
                self.book.end(job, JobState.CANCELLED, now)
        else:
            job.result, job.error = message.get("data") or {}, None
            self.book.end(job, JobState.FINISHED, now)

    def _broken_data(self, job: JobRecord, message: dict[str, Any]) -> dict[str, Any] | None:
        """Record how a result violates the contract; return the error to use instead of its data, None if accepted."""
        worker = self.workers.get(message["worker_id"])
        skill = worker.skills.get(job.skill) if worker else None
        if skill is None:
            return None
        for text in self.contracts.result_problems(skill, job.params, message):
            self.problem("result", message["worker_id"], 200, f"skill {job.skill}: {text}")
        broken = self.contracts.data_problems(skill, message)
        if not broken:
            return None
        text = f"the result violates the announced output schema: {'; '.join(broken)}"
        return {"code": ContractViolationError.code, "message": text}

    def _failed(self, job: JobRecord, error: dict[str, Any], now: float) -> None:
        if not error:
            self.problem("result", job.worker_id, 200, f"skill {job.skill}: a failure without an error")
        job.error = error or {"code": "TRANSIENT_ERROR", "message": ""}
        self._retry(job, _NOT_RETRIED.get(str(job.error.get("code"))), self._settings.retry_delay, now)

    def _retry(self, job: JobRecord, final: JobState | None, delay: float, now: float) -> None:
        """Queue a job again after a failed attempt, or end it: in ``final``, or when its attempts are used up."""
        job.failures += 1
        if final is None and job.failures < self._settings.max_attempts:
            self.book.put_back(job, now, delay)
            self.when_ready(None)
        else:
            self.book.end(job, final or JobState.QUARANTINED, now)

    def event(self, message: dict[str, Any]) -> Literal["event_accepted", "contract_violation_error"]:
        """Accept an event; it belongs to a job, or only to its worker."""
        job_id, task_id = as_text(message.get("target_job_id")), as_text(message.get("target_task_id"))
        job = self.book.jobs.get(job_id) if job_id else self.book.by_task.get(task_id or "")
        if job is None and (job_id or task_id):
            text = f"event {message['event_type']!r} of a job that is not known here"
            self.problem("event", message["worker_id"], 200, text)
        problems = self._event_problems(job, message)
        if problems and message["event_type"] != PROGRESS_EVENT:
            return "contract_violation_error"
        now = self._clock()
        if job is not None:
            job.add_event(message, now)
            if message["event_type"] == PROGRESS_EVENT and job.state is JobState.RUNNING:
                self._progressed(job, as_object(message.get("payload")), now)
                return "event_accepted"
        self._hub.publish("event", now, lambda: message, job=job, worker_id=message["worker_id"])
        return "event_accepted"

    def _event_problems(self, job: JobRecord | None, message: dict[str, Any]) -> Sequence[str]:
        worker = self.workers.get(message["worker_id"])
        skill = worker.skills.get(job.skill) if worker and job else None
        problems = self.contracts.event_problems(skill, message)
        for text in problems:
            self.problem("event", message["worker_id"], 200, text)
        return problems

    def _progressed(self, job: JobRecord, payload: Mapping[str, Any], now: float) -> None:
        job.progress = Progress(as_number(payload.get("progress")) or 0.0, as_text(payload.get("message")) or "")
        job.progress_at = now
        self.book.changed(job, "progress", now)

    # ------------------------------------------------------------------------------------------- time

    @property
    def next_due(self) -> float | None:
        """The latest time at which `tick` must run for the jobs' sake."""
        return self.book.next_due

    def tick(self) -> None:
        """Process everything due: deadlines, retry delays, leases, abandoned tasks."""
        now = self._clock()
        self._run_due(now)
        for worker in list(self.workers.values()):
            if worker.last_seen + self._settings.lease <= now:
                self._lose(worker.worker_id)
                for job in list(self.book.running.get(worker.worker_id, {}).values()):
                    self.book.put_back(job, now)
        for worker_id, jobs in list(self.book.running.items()):
            self._recover(worker_id, jobs, now)
        self.when_ready(None)

    def _run_due(self, now: float) -> None:
        for job in self.book.due(now):
            if job.state.final:
                continue
            if job.deadline is not None and job.deadline <= now:
                job.error = _DEADLINE
                self.book.end(job, JobState.FAILED, now)
            elif job.state is JobState.QUEUED:
                self.book.resume(job)
            elif self._settings.reassign_running and self._out_of_time(job, now):
                job.error = _TASK_TIMEOUT
                self._retry(job, None, 0.0, now)

    def _out_of_time(self, job: JobRecord, now: float) -> bool:
        """Whether the current attempt has had its time."""
        return (job.handed_out_at or 0.0) + self._settings.task_timeout <= now

    def _recover(self, worker_id: str, jobs: dict[str, JobRecord], now: float) -> None:
        """Queue again the tasks that a worker was given but does not work on."""
        worker = self.workers.get(worker_id)
        listed = set(as_texts(((worker and worker.last_heartbeat) or {}).get("current_tasks")))
        for job in list(jobs.values()):
            if not self._out_of_time(job, now):
                break  # the others were handed out later
            if listed.isdisjoint({job.job_id, job.task_id}):
                self.book.put_back(job, now)
