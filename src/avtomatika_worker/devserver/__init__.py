"""An embedded orchestrator for development and tests: in memory, over real HTTP, for any protocol version.

    async with EmbeddedOrchestrator() as orchestrator:
        ...  # a worker with ORCHESTRATOR_URL=orchestrator.url and WORKER_TOKEN=orchestrator.token
        job = orchestrator.submit("echo", {"x": 1})
        await job.done()

It checks and answers as RXON.md describes; `Fault` scripts failures. The clients' calls are listed in ``client_api``.
"""

from __future__ import annotations

from avtomatika_worker.devserver.changes import Change, Subscription
from avtomatika_worker.devserver.console import Console, FileRoom, TaskLogs
from avtomatika_worker.devserver.faults import Fault
from avtomatika_worker.devserver.orchestrator_settings import (
    DEFAULT_RATE_LIMITS,
    PRODUCTION_LIKE,
    OrchestratorOptions,
    OrchestratorSettings,
)
from avtomatika_worker.devserver.server import EmbeddedOrchestrator
from avtomatika_worker.devserver.snapshots import (
    JobRecord,
    JobState,
    Problem,
    Progress,
    ReceivedResult,
    RecordedCall,
    WorkerRecord,
)

__all__ = [
    "DEFAULT_RATE_LIMITS",
    "PRODUCTION_LIKE",
    "Change",
    "Console",
    "EmbeddedOrchestrator",
    "Fault",
    "FileRoom",
    "JobRecord",
    "JobState",
    "OrchestratorOptions",
    "OrchestratorSettings",
    "Problem",
    "Progress",
    "ReceivedResult",
    "RecordedCall",
    "Subscription",
    "TaskLogs",
    "WorkerRecord",
]
