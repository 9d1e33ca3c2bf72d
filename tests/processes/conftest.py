"""The skills of process_app.py, importable by that name in the worker and in its processes."""

import asyncio
import importlib
import sys
import time
from pathlib import Path

import psutil
import pytest

from avtomatika_worker import Worker
from avtomatika_worker.testing import WorkerHarness

HERE = Path(__file__).parent


def gone(pid):
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition, timeout=10.0):
    """Poll the state of another process, which sends no notice."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def app():
    """Import it from where it is found as a user's program is."""
    sys.path.insert(0, str(HERE))
    yield importlib.import_module("process_app")
    sys.path.remove(str(HERE))


@pytest.fixture(autouse=True)
def log_level(caplog):
    """Let tests see what a user sees."""
    caplog.set_level("INFO", "avtomatika_worker")


@pytest.fixture
def worker(app):
    made = Worker(worker_type="test", skill_dependencies={"describe": ["model-a"]})
    made.include_blueprint(app.skills)
    return made


@pytest.fixture
async def h(worker, tmp_path):
    settings = {
        "max_concurrent_tasks": 2,
        "file_store_root": str(tmp_path / "store"),
        "task_files_dir": str(tmp_path / "files"),
    }
    async with WorkerHarness(worker, settings=settings) as started:
        yield started
