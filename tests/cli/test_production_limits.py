"""What `worker dev` shows of the limits of released orchestrators."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.cli.production_limits import warn_of_production_limits
from avtomatika_worker.testing import EmbeddedOrchestrator, WorkerHarness

APP = """
from avtomatika_worker import Worker

worker = Worker()

@worker.skill
async def nothing():
    pass
"""


def a_worker() -> tuple[Worker, asyncio.Event]:
    worker, released = Worker(worker_type="test"), asyncio.Event()

    @worker.skill(events={"tick": dict})
    async def talk(events: int, *, ctx: TaskContext) -> None:
        for number in range(events):
            await ctx.send_event("tick", {"number": number})

    @worker.skill
    async def wait() -> None:
        await released.wait()

    return worker, released


@contextlib.asynccontextmanager
async def watched(orchestrator: EmbeddedOrchestrator) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(warn_of_production_limits(orchestrator))
        await asyncio.sleep(0)  # it subscribes
        yield
        watch.cancel()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [
        record.getMessage() for record in caplog.records if getattr(record, "action", "") == "production_limit_exceeded"
    ]


async def test_a_skill_that_sends_too_many_events_is_warned_of_once(warnings: Callable[[], list[str]]) -> None:
    worker, _ = a_worker()
    async with WorkerHarness(worker) as h, watched(h.orchestrator):
        await h.run("talk", {"events": 100})
        assert warnings() == []
        await h.run("talk", {"events": 3})
        await h.run("talk", {"events": 3})
    assert len(warnings()) == 1
    assert "skill talk sends more events than a released orchestrator accepts" in warnings()[0]
    assert "--production-like" in warnings()[0]


async def test_a_skill_that_takes_too_long_is_warned_of_while_it_runs(warnings: Callable[[], list[str]]) -> None:
    worker, released = a_worker()
    orchestrator = EmbeddedOrchestrator(task_timeout=10_000, lease=10_000)
    async with orchestrator, WorkerHarness(worker, orchestrator=orchestrator) as h, watched(orchestrator):
        task = h.submit("wait")
        await orchestrator.wait_for(lambda: task.job.state == "running")
        orchestrator.clock_offset = 290
        await h.run("talk", {"events": 1})
        assert warnings() == []
        orchestrator.clock_offset = 310
        await h.run("talk", {"events": 1})
        assert [text.partition(":")[0] for text in warnings()] == [
            "skill wait takes longer than a released orchestrator waits by default"
        ]
        released.set()
        await task.result()


def test_production_like_has_the_limits(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text(APP, "utf-8")
    command = [sys.executable, "-u", "-m", "avtomatika_worker.cli", "dev", "--app", "my_app:worker", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--production-like"],
        cwd=tmp_path,
        env={"PATH": "", "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            banner = "".join(iter(process.stdout.readline, "  Stop with Ctrl+C\n"))
            url, token = re.findall(r"development at (\S+)|Token for workers: (\S+)", banner)
            statuses = [token_status(url[0], token[1]) for _ in range(101)]
        finally:
            process.kill()
    assert statuses == [200] * 100 + [429]


def token_status(url: str, token: str) -> int:
    headers = {"X-Worker-Token": token, "X-Worker-ID": "another"}
    request = urllib.request.Request(f"{url}/_worker/auth/token", method="POST", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - http, as printed
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
