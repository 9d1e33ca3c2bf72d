"""A history: what happened between orchestrators and workers, one entry for each thing, in the order of time."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """What an entry is about. Facts that only some kinds have are named here."""

    ORCHESTRATOR_STARTED = "orchestrator started"
    """``lease``: seconds for which it knows a worker that does not heartbeat."""
    ORCHESTRATOR_STOPPED = "orchestrator stopped"
    HEARTBEATS_PROMISED = "heartbeats promised"
    """``seconds``: the longest time between two heartbeats of the worker."""
    HEARTBEATS_CONFIGURED = "heartbeats configured"
    """A worker has registered. ``seconds``: the longest time between two heartbeats, while all are answered well."""
    POLLING = "polling"
    """A worker of this process begins a poll, which arrives later: much later where the machine is busy."""
    CALL_SENT = "call sent"
    """A worker's call arrived. ``call``, and a ``number`` that its answer has too.

    ``status`` of a heartbeat or a result; ``event_id`` and ``event_type`` of an event."""
    CALL_ANSWERED = "call answered"
    """The facts of the call, and ``code``: the HTTP status, 0 for no answer. ``answer`` to a result or event.

    ``slots`` of a registration."""
    HANDED_OUT = "handed out"
    """A poll was answered with a task. ``skill`` and ``params``."""
    JOB_ENDED = "job ended"
    """``state``: finished, failed, quarantined or cancelled."""
    WORK_STARTED = "work started"
    """The worker took a task to run. ``skill``."""
    WORK_ENDED = "work ended"
    """``skill``, and the ``status`` of its result."""
    NOT_RUN = "not run"
    """The worker answered a task without running it."""
    RESULT_GIVEN_UP = "result given up"
    """``reason``: the log's action, such as result_lost, result_expired or result_superseded."""
    RESULTS_STORED = "results stored"
    """A worker ended. ``count``: how many results and events it left on disk."""
    CRASHED = "worker crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened. ``at`` is in monotonic seconds; ids are empty where there are none."""

    at: float
    kind: Kind
    orchestrator: str = ""
    worker_id: str = ""
    job_id: str = ""
    task_id: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __str__(self) -> str:
        named = [("worker", self.worker_id), ("job", self.job_id), ("task", self.task_id), *self.facts.items()]
        text = ", ".join(f"{name} {value}" for name, value in named if value is not None and value != "")
        return f"{self.at:12.4f}  {self.kind.value}: {text}" if text else f"{self.at:12.4f}  {self.kind.value}"
