"""A worker in the test's own loop, an embedded orchestrator beside it."""

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
import pytest

from avtomatika_worker import Worker
from avtomatika_worker.devserver import PRODUCTION_LIKE, EmbeddedOrchestrator, Fault

FAST = {
    "registration_retry_initial_delay": 0.02,
    "registration_retry_max_delay": 0.1,
    "result_retry_initial_delay": 0.02,
    "result_retry_max_delay": 0.1,
    "rate_limit_wait": 0.1,
    "progress_interval": 0.05,
    "enable_websockets": True,
    "shutdown_timeout": 5.0,
}


@contextlib.asynccontextmanager
async def running(worker, orchestrator, *, up_within=10.0, health_check=False, **settings):
    """Run ``worker`` for ``orchestrator`` until the block ends."""
    environment = {
        "WORKER_ID": "w1",
        "ORCHESTRATOR_URL": orchestrator.url,
        "WORKER_TOKEN": orchestrator.token or "",
    }
    main = asyncio.create_task(worker.main(make_settings(worker, environment, settings), health_check=health_check))
    try:
        up = asyncio.create_task(orchestrator.wait_for_worker(settings.get("worker_id", "w1"), timeout=up_within))
        await asyncio.wait({up, main}, return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            up.cancel()
            await main
        await up
        yield main
    finally:
        if not main.done():
            await worker.shutdown()
        if not main.cancelled():
            await main


def asked_for(orchestrator):
    """Return the list of the skills that each poll from now on asks for, while they come."""
    asked = []

    def look(call):
        asked.append(set(parse_qs(call.query)["available_skills"][0].split(",")))
        return False

    orchestrator.inject(Fault("poll", "delay", times=None, when=look))
    return asked


class Health:
    """What the health server of a worker shows, at a socket below a temporary directory."""

    def __init__(self, directory):
        self._path = str(directory / "health")
        self.settings = {"health_check": True, "health_host": f"unix:{self._path}"}
        """For `running`."""

    async def now(self):
        """Return what is shown now."""
        async with (
            aiohttp.ClientSession("http://worker", connector=aiohttp.UnixConnector(self._path)) as client,
            client.get("/health") as answer,
        ):
            return await answer.json()

    async def until(self, holds, timeout=15.0):
        """Wait until ``holds`` of what is shown."""
        async with asyncio.timeout(timeout):
            while not holds(await self.now()):  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.005)


async def beats(orchestrator, count=3, worker_id="w1"):
    """Wait until so many more heartbeats have come: long enough for what must not happen to happen."""
    seen = orchestrator.workers[worker_id].heartbeats_received
    await orchestrator.wait_for(lambda: orchestrator.workers[worker_id].heartbeats_received >= seen + count)


@contextlib.asynccontextmanager
async def in_thread(worker, orchestrator, *, health_check=False, **settings):
    """Run ``worker`` in a thread and loop of its own, so that a skill that blocks does not block the test."""
    environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token or ""}
    settings = make_settings(worker, environment, settings)
    loops = []

    async def main():
        loops.append(asyncio.get_running_loop())
        await worker.main(settings, health_check=health_check)

    ended = asyncio.create_task(asyncio.to_thread(asyncio.run, main()))
    try:
        await orchestrator.wait_for_worker("w1", timeout=10)
        yield
    finally:
        loops[0].call_soon_threadsafe(worker.request_shutdown)
        await ended


def actions(caplog, action):
    """Return the messages that were logged with ``action``."""
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == action]


async def listening(port, timeout=10.0):
    """Wait until something listens on ``port``."""
    until = time.monotonic() + timeout
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


def make_settings(worker, environment, settings):
    from avtomatika_worker.config import load_settings

    return load_settings(environment, **{**FAST, **settings})


@pytest.fixture(params=["1.0b7", "1.0b11", "1.0b17"])
def version(request):
    return request.param


@pytest.fixture
async def orchestrator(request):
    """One with the limits of released orchestrators, but for tests marked ``patient``."""
    patient = request.node.get_closest_marker("patient") is not None
    async with EmbeddedOrchestrator(None if patient else PRODUCTION_LIKE, poll_time=1.0) as started:
        yield started


@pytest.fixture(autouse=True)
def log_level(caplog):
    """Let tests see what a user sees."""
    caplog.set_level("INFO", "avtomatika_worker")


@pytest.fixture
def worker():
    return Worker(worker_type="test")


@pytest.fixture
def health():
    """In a directory of its own: the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="w") as directory:
        yield Health(Path(directory))


@pytest.fixture
def switching_often():
    """Let threads take turns so often that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
