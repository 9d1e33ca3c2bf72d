"""Records histories: of the embedded orchestrators of this process, and of the workers that run in it."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Collection, Generator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from avtomatika_worker.devserver import Change, JobState, RecordedCall
from avtomatika_worker.devserver.observing import observed_by
from avtomatika_worker.observability.log_context import current_log_context
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.testing.history.entries import Entry, Kind
from avtomatika_worker.testing.history.invariants import INVARIANTS

_LEVELS: Final = dict.fromkeys(("task", "outbox", "supervisor", "program", "link"), logging.INFO) | {
    "poller": logging.DEBUG
}
"""Of the worker's loggers."""
_ENDS: Final = frozenset({"task_finished", "task_failed"})
_GIVEN_UP: Final = frozenset({"result_lost", "result_expired", "result_superseded"})
_STORY: Final = 40
"""How many entries a failed check shows of the tasks that it names, at most."""


class Violation(NamedTuple):
    """An invariant that does not hold, by its name, and how."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


class History:
    """What happened, as `recording` records it, or built from ``entries`` from elsewhere.

    May be used from any thread.
    """

    def __init__(self, entries: Collection[Entry] = ()) -> None:
        self._entries = list(entries)
        self._workers: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def entries(self) -> list[Entry]:
        """The entries so far, in the order of time."""
        with self._lock:
            return sorted(self._entries, key=lambda entry: entry.at)

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        with self._lock:
            self._entries.append(entry)
            if entry.kind is Kind.HANDED_OUT:
                self._workers[entry.task_id] = entry.worker_id

    def promise_heartbeats(self, worker_id: str, seconds: float) -> None:
        """Hold a worker to heartbeats that are at most this far apart, instead of to its orchestrator's lease."""
        kind = Kind.HEARTBEATS_PROMISED
        self.add(Entry(at=time.monotonic(), kind=kind, worker_id=worker_id, facts={"seconds": seconds}))

    def worker_of(self, task_id: str) -> str:
        """Return the worker that a task was handed out to last, or the empty text."""
        return self._workers.get(task_id, "")

    def violations(self, *, except_for: Collection[str] = ()) -> list[Violation]:
        """Return what contradicts the invariants (see `INVARIANTS`), except for those named.

        Raises ValueError for the name of no invariant.
        """
        if unknown := sorted(set(except_for) - INVARIANTS.keys()):
            raise ValueError(f"{', '.join(unknown)}: no invariant; choose from {', '.join(INVARIANTS)}")
        entries = self.entries
        return [
            Violation(name, text)
            for name, invariant in INVARIANTS.items()
            if name not in except_for
            for text in invariant(entries)
        ]

    def check(self, *, except_for: Collection[str] = ()) -> None:
        """Check the invariants. Raises AssertionError with what contradicts them, and the story of the tasks."""
        violations = self.violations(except_for=except_for)
        if violations:
            raise AssertionError("\n".join([*map(str, violations), "", *self.story(violations)]))

    def story(self, violations: Collection[Violation]) -> list[str]:
        """Return the entries about the tasks, jobs and workers that violations name, as lines of text."""
        texts = " ".join(violation.text for violation in violations)
        lines = [
            str(entry)
            for entry in self.entries
            if (entry.task_id and entry.task_id in texts)
            or (entry.job_id and entry.job_id in texts)
            or (not entry.task_id and entry.worker_id and f"worker {entry.worker_id} " in texts)
        ]
        return lines if len(lines) <= _STORY else [*lines[: _STORY // 2], "…", *lines[-_STORY // 2 :]]


@contextlib.contextmanager
def recording() -> Generator[History]:
    """Record what embedded orchestrators and workers of this process do inside the block.

    What a worker in another process does is seen as far as its calls show it.
    """
    history = History()
    tap = _LogTap(history)
    with observed_by(_Calls(history)), tap.fitted():
        yield history


class _Calls:
    """Observes orchestrators."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._sent: dict[int, dict[str, Any]] = {}
        self._number = 0

    def started(self, url: str, lease: float) -> None:
        self._add(Kind.ORCHESTRATOR_STARTED, url, facts={"lease": lease})

    def stopped(self, url: str) -> None:
        self._add(Kind.ORCHESTRATOR_STOPPED, url)

    def received(self, url: str, call: RecordedCall) -> None:
        self._number += 1
        message = _json(call.body)
        facts = {"call": call.call, "number": self._number, **_chosen(message, _FACTS_OF.get(call.call, ()))}
        ids = {
            "worker_id": str(message.get("worker_id") or call.headers.get("X-Worker-ID") or ""),
            "job_id": str(message.get("job_id") or message.get("target_job_id") or ""),
            "task_id": str(message.get("task_id") or message.get("origin_task_id") or ""),
        }
        fields = self._sent[id(call)] = {**ids, "facts": facts}
        self._add(Kind.CALL_SENT, url, **fields)

    def answered(self, url: str, call: RecordedCall) -> None:
        fields = self._sent.pop(id(call), {"facts": {"call": call.call, "event_id": "", "event_type": ""}})
        facts: dict[str, Any] = {**fields["facts"], "code": call.status}
        if call.call in {"result", "event"}:
            facts["answer"] = _json(call.reply).get("status") if call.status == 200 else None
        elif call.call == "register":
            facts["slots"] = as_object(_json(call.body).get("resources")).get("max_concurrent_tasks")
        self._add(Kind.CALL_ANSWERED, url, **{**fields, "facts": facts})

    def changed(self, url: str, change: Change) -> None:
        job = change.job
        if job is None:
            return
        ids = {"worker_id": job.worker_id or "", "job_id": job.job_id, "task_id": job.task_id or ""}
        if change.kind == JobState.RUNNING:
            self._add(Kind.HANDED_OUT, url, **ids, facts={"skill": job.skill, "params": job.params})
        elif job.state.final and change.kind == job.state:
            self._add(Kind.JOB_ENDED, url, **ids, facts={"state": job.state.value})

    def _add(self, kind: Kind, url: str, **fields: Any) -> None:
        self._history.add(Entry(at=time.monotonic(), kind=kind, orchestrator=url, **fields))


_FACTS_OF: Final = {"heartbeat": ("status",), "result": ("status",), "event": ("event_id", "event_type")}


def _chosen(message: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: message.get(name) for name in names}


def _json(body: bytes) -> dict[str, Any]:
    try:
        return as_object(orjson.loads(body)) if body else {}
    except orjson.JSONDecodeError:
        return {}


class _LogTap(logging.Filter):
    """Sees the records of the worker's loggers, also those that their level would keep from being made.

    Other filters and handlers see what they would without it.
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history
        self._levels: dict[str, int] = {}

    @contextlib.contextmanager
    def fitted(self) -> Generator[None]:
        """Put the tap in place inside the block."""
        with contextlib.ExitStack() as stack:
            for name, level in _LEVELS.items():
                logger = logging.getLogger(f"avtomatika_worker.{name}")
                stack.callback(logger.setLevel, logger.level)
                stack.callback(logger.removeFilter, self)
                self._levels[logger.name] = logger.level
                if not logger.isEnabledFor(level):
                    logger.setLevel(level)
                logger.filters.insert(0, self)
            yield

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what the record shows of a task's course; let pass what would pass without the tap."""
        action = getattr(record, "action", "")
        if action in _ENDS:
            self._work_ended(record)
        elif action == "task_answered":
            self._add(Kind.NOT_RUN)
        elif action in _GIVEN_UP:
            task_id, job_id = str(getattr(record, "task_id", "")), str(getattr(record, "job_id", ""))
            self._add(Kind.RESULT_GIVEN_UP, task_id=task_id, job_id=job_id, facts={"reason": action})
        elif action == "outbox_left":
            self._add(Kind.RESULTS_STORED, facts={"count": getattr(record, "count", 0)})
        elif action == "crashed":
            self._add(Kind.CRASHED)
        elif action == "registered":
            facts = {"seconds": getattr(record, "longest_interval", math.inf)}
            self._add_of_link(Kind.HEARTBEATS_CONFIGURED, record, facts)
        elif action == "polling":
            self._add_of_link(Kind.POLLING, record, {})
        logger = logging.getLogger(record.name)
        own = self._levels.get(record.name, logging.NOTSET)
        level = own or (logger.parent or logger).getEffectiveLevel()
        return record.levelno >= level

    def _add_of_link(self, kind: Kind, record: logging.LogRecord, facts: Mapping[str, Any]) -> None:
        """Add what a worker does at an orchestrator."""
        worker_id, url = str(getattr(record, "worker_id", "")), str(getattr(record, "orchestrator", ""))
        self._history.add(Entry(at=time.monotonic(), kind=kind, orchestrator=url, worker_id=worker_id, facts=facts))

    def _work_ended(self, record: logging.LogRecord) -> None:
        seconds, skill = float(getattr(record, "seconds", 0.0)), getattr(record, "skill", "")
        self._add(Kind.WORK_STARTED, at=time.monotonic() - seconds, facts={"skill": skill})
        self._add(Kind.WORK_ENDED, facts={"skill": skill, "status": getattr(record, "status", "")})

    def _add(self, kind: Kind, *, at: float | None = None, **fields: Any) -> None:
        context = current_log_context()
        fields = {"task_id": context.get("task_id", ""), "job_id": context.get("job_id", ""), **fields}
        worker_id = self._history.worker_of(fields["task_id"])
        if fields["task_id"] and not worker_id:
            return  # a task of another orchestrator
        self._history.add(Entry(at=time.monotonic() if at is None else at, kind=kind, worker_id=worker_id, **fields))
