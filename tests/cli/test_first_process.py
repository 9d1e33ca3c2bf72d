"""The worker as process 1 of a container, for which ``unshare`` makes a name space of processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from processes.conftest import until

ALONE = ("unshare", "--pid", "--fork", "--mount-proc")

APP = """
import os, subprocess, time
from pathlib import Path
from avtomatika_worker import Worker
worker = Worker(worker_type="test")

@worker.skill
def leave_orphan() -> dict:
    code = subprocess.call(["sh", "-c", "sleep 0.01 & exit 3"])
    return {"code": code, "parent": os.getppid()}

@worker.skill(executor="process", timeout=0.5, cancel_grace=0.1)
def killed() -> int:
    return subprocess.call(["sh", "-c", "sleep 60 & setsid sleep 60 & sleep 60"])

if __name__ == "__main__":
    worker.run()
"""
SLOW = "import time\nfrom pathlib import Path\nPath('importing').touch()\ntime.sleep(3600)\n"
COMMAND = (sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker")


def may_unshare():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_unshare(), reason="unshare is missing, or this user may not use it")


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=1) as started:
        yield started


@contextlib.asynccontextmanager
async def alone(*command, cwd, orchestrator):
    """Run a command as process 1 of a name space; yields ``unshare``'s process and that process as it is seen here."""
    environment = {
        **os.environ,
        "ORCHESTRATOR_URL": orchestrator.url,
        "WORKER_TOKEN": orchestrator.token,
        "WORKER_ID": "first",
        "WORKER_PORT": "0",
        "WORKER_RESULT_DURABILITY": "off",
    }
    process = await asyncio.create_subprocess_exec(*ALONE, *command, cwd=cwd, env=environment)
    try:
        await until(psutil.Process(process.pid).children)
        yield process, psutil.Process(process.pid).children()[0]
    finally:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children():
                each.kill()  # all of its name space ends with it
            process.kill()
        await process.wait()


@pytest.mark.parametrize("command", [COMMAND, (sys.executable, "app.py")], ids=["worker run", "a program"])
async def test_process_1_reaps_what_it_adopts_and_steals_no_exit_code(orchestrator, tmp_path, command):
    (tmp_path / "app.py").write_text(APP, "utf-8")
    async with alone(*command, cwd=tmp_path, orchestrator=orchestrator) as (process, first):
        await orchestrator.wait_for_worker("first", timeout=20)
        for _ in range(5):
            job = await orchestrator.submit("leave_orphan", {}).done(10)
            assert job.result == {"code": 3, "parent": 1}
        job = await orchestrator.submit("killed", {}).done(20)
        assert job.error["code"] == "TIMEOUT_ERROR"
        await until(lambda: len(first.children()) == 1)  # the worker itself
        assert not [each for each in first.children(recursive=True) if each.status() == psutil.STATUS_ZOMBIE]
        first.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    assert not orchestrator.workers["first"].polls


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_app_is_imported_is_not_lost(orchestrator, tmp_path, number):
    (tmp_path / "app.py").write_text(SLOW, "utf-8")
    async with alone(*COMMAND, cwd=tmp_path, orchestrator=orchestrator) as (process, first):
        await until((tmp_path / "importing").exists)
        first.send_signal(number)
        async with asyncio.timeout(5):
            assert await process.wait() == 0
    assert not orchestrator.workers


async def test_the_exit_code_is_the_worker_s(orchestrator, tmp_path):
    (tmp_path / "app.py").write_text("raise ValueError('broken')", "utf-8")
    process = await asyncio.create_subprocess_exec(*ALONE, *COMMAND, cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(20):
        assert await process.wait() == 2
