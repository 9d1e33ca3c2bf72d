"""Tools for testing workers: no ports to choose, nothing to patch, no sleeping.

    async def test_resize():
        async with WorkerHarness(worker) as h:
            result = await h.run("resize", {"width": 100})
        assert result.data == {"width": 100}

`WorkerClient` does the same without ``async``. `EmbeddedOrchestrator` and `Fault` are for tests of network and
orchestrator failures, `PRODUCTION_LIKE` for those of an orchestrator's rate limits and task timeout;
`assert_contract` holds a worker to its published contract. docs/testing.md has examples.
"""

from __future__ import annotations

from avtomatika_worker.devserver import (
    PRODUCTION_LIKE,
    EmbeddedOrchestrator,
    Fault,
    JobRecord,
    JobState,
    OrchestratorSettings,
    Progress,
)
from avtomatika_worker.testing.checkpoint_shelf import SeenCheckpoint
from avtomatika_worker.testing.client import WorkerClient
from avtomatika_worker.testing.contract_check import assert_contract
from avtomatika_worker.testing.harness import StartHarness, WorkerHarness
from avtomatika_worker.testing.result import SeenError, SeenEvent, SkillResult
from avtomatika_worker.testing.task_handle import RunningTask

__all__ = [
    "PRODUCTION_LIKE",
    "EmbeddedOrchestrator",
    "Fault",
    "JobRecord",
    "JobState",
    "OrchestratorSettings",
    "Progress",
    "RunningTask",
    "SeenCheckpoint",
    "SeenError",
    "SeenEvent",
    "SkillResult",
    "StartHarness",
    "WorkerClient",
    "WorkerHarness",
    "assert_contract",
]
