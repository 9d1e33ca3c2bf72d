"""An embedded orchestrator that hands a lost worker's task to another soon."""

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator(poll_time=1.0, task_timeout=2.0) as started:
        yield started
