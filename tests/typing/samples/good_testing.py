"""What users write in tests of their workers. No checker may complain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from avtomatika_worker import S3Uri, Worker
from avtomatika_worker.testing import (
    EmbeddedOrchestrator,
    Fault,
    JobRecord,
    Progress,
    RunningTask,
    SeenError,
    SeenEvent,
    SkillResult,
    StartHarness,
    WorkerHarness,
    assert_contract,
)

worker = Worker(worker_type="test")


@dataclass
class Size:
    width: int


async def test_with_a_block(tmp_path: Path) -> None:
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 1}, environ={"CPU_CORES": "2"}) as h:
        assert_type(h, WorkerHarness)
        assert_type(h.store("a.txt", "text"), S3Uri)
        result = await h.run("resize", Size(3), deadline_in=5, metadata={"customer": 1}, priority=0.5)
        await h.run("resize", {"source": tmp_path / "a.jpg", "other": h.store("b", b"bytes")}, timeout=None)
    assert_type(result, SkillResult)
    assert_type(result.ok, bool)
    assert_type(result.status, str)
    assert_type(result.data, dict[str, Any])
    assert_type(result.error, SeenError | None)
    assert_type(result.event("alert"), SeenEvent)
    assert_type(result.event("alert").payload, dict[str, Any])
    assert_type(result.progress, tuple[Progress, ...])
    assert_type(result.file("picture"), Path)
    assert_type(result.files, Mapping[str, Path])
    assert_type(result.duration, float)
    assert_type(result.job, JobRecord)
    if result.error is not None:
        assert_type(result.error.code, str)


async def test_with_the_fixtures(worker_harness: StartHarness, orchestrator: EmbeddedOrchestrator) -> None:
    h = await worker_harness(worker, orchestrator=orchestrator, own_thread=True, resources={Size: Size(3)})
    assert_type(h, WorkerHarness)
    task = h.submit("resize", {"width": 3})
    assert_type(task, RunningTask)
    assert_type(await task.wait_for_event("alert"), SeenEvent)
    assert_type((await task.wait_for_progress(0.5)).fraction, float)
    assert_type(task.cancel(), bool)
    assert_type(await task.result(timeout=3), SkillResult)


async def test_a_bad_day() -> None:
    async with EmbeddedOrchestrator(version="1.0b11", max_attempts=2) as orchestrator:
        orchestrator.inject(Fault("result", "drop_after"), Fault("poll", "status", status=429, retry_after=1.5))
        await orchestrator.wait_for(lambda: len(orchestrator.workers) == 1)
        assert_type(orchestrator.url, str)


def test_the_contract() -> None:
    assert_contract(worker, Path("contract.json"))
    assert_contract(worker, "contract.json", update=True)
