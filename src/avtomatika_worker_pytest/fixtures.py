"""The fixtures. The package is imported when one is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest_asyncio

if TYPE_CHECKING:
    from avtomatika_worker import Worker
    from avtomatika_worker.testing import EmbeddedOrchestrator, StartHarness, WorkerHarness


@pytest_asyncio.fixture
async def worker_harness() -> AsyncIterator[StartHarness]:
    """Start workers: ``h = await worker_harness(worker, settings={…})``; they stop when the test ends.

    It takes the arguments of `avtomatika_worker.testing.WorkerHarness`.
    """
    from avtomatika_worker.testing import WorkerHarness

    async with AsyncExitStack() as stack:

        async def start(worker: Worker, **options: Any) -> WorkerHarness:
            return await stack.enter_async_context(WorkerHarness(worker, **options))

        yield start


@pytest_asyncio.fixture
async def orchestrator() -> AsyncIterator[EmbeddedOrchestrator]:
    """Run an embedded orchestrator on a port of its own, as long as the test runs."""
    from avtomatika_worker.testing import EmbeddedOrchestrator

    async with EmbeddedOrchestrator() as started:
        yield started
