"""SIGHUP to a single worker: an orderly shutdown, unless it is ignored, as under nohup."""

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator

APP = """
import asyncio
from pathlib import Path
from avtomatika_worker import Worker

worker = Worker()

@worker.skill
async def nap() -> None:
    while not Path("go-on").exists():
        await asyncio.sleep(0.01)

if __name__ == "__main__":
    worker.run()
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP there")


@contextlib.asynccontextmanager
async def running(tmp_path, command, orchestrator):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "ORCHESTRATOR_URL": orchestrator.url,
            "WORKER_TOKEN": orchestrator.token,
            "WORKER_ID": "w1",
            "WORKER_PORT": "0",
            "WORKER_STATE_DIR": str(tmp_path / "state"),
        },
    )
    try:
        await orchestrator.wait_for_worker("w1", timeout=30)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("hangups", [1, 3])
async def test_a_hangup_lets_the_running_task_finish(tmp_path, hangups):
    async with EmbeddedOrchestrator(poll_time=1.0) as orchestrator:
        async with running(tmp_path, [sys.executable, "app.py"], orchestrator) as process:
            job = orchestrator.submit("nap", {})
            await orchestrator.wait_for(lambda: job.state.value == "running")
            for _ in range(hangups):
                process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.05)  # signals that are sent at once are one
            (tmp_path / "go-on").touch()
            assert await asyncio.wait_for(process.wait(), 30) == 0
        assert job.state.value == "finished"


async def test_under_nohup_a_hangup_changes_nothing(tmp_path):
    async with EmbeddedOrchestrator(poll_time=1.0) as orchestrator:
        command = ["sh", "-c", f"trap '' HUP; exec {sys.executable} app.py"]
        async with running(tmp_path, command, orchestrator) as process:
            process.send_signal(signal.SIGHUP)
            (tmp_path / "go-on").touch()
            job = orchestrator.submit("nap", {})
            await orchestrator.wait_for(lambda: job.state.final)
            assert process.returncode is None
