"""Workers that share a directory of state, as several on one machine do, and an orchestrator that retries."""

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, max_attempts=5) as started:
        yield started


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level("INFO", "avtomatika_worker")
