"""The fixtures. The package is imported when one is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from avtomatika_worker_pytest.loops import check_loop, loop_for

if TYPE_CHECKING:
    from avtomatika_worker import Worker
    from avtomatika_worker.testing import EmbeddedOrchestrator, StartHarness, WorkerHarness


@pytest_asyncio.fixture
async def worker_harness(request: pytest.FixtureRequest) -> AsyncIterator[StartHarness]:
    """Start workers: ``h = await worker_harness(worker, settings={…})``; they stop when the test ends.

    It takes the arguments of `avtomatika_worker.testing.WorkerHarness`. Fails the test when that does not run in the
    event loop of fixtures.
    """
    loop = loop_for(request)
    _begin_history(request)
    from avtomatika_worker.testing import WorkerHarness

    async with AsyncExitStack() as stack:

        async def start(worker: Worker, **options: Any) -> WorkerHarness:
            check_loop("worker_harness", loop)
            return await stack.enter_async_context(WorkerHarness(worker, **options))

        yield start


@pytest_asyncio.fixture
async def orchestrator(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedOrchestrator]:
    """Run an embedded orchestrator on a port of its own, as long as the test runs, in the event loop of fixtures."""
    loop_for(request)
    _begin_history(request)
    from avtomatika_worker.testing import EmbeddedOrchestrator

    async with EmbeddedOrchestrator() as started:
        yield started


def _begin_history(request: pytest.FixtureRequest) -> None:
    """Begin ``worker_history`` first, where the test wants it: what is begun first ends last."""
    if "worker_history" in request.fixturenames:
        request.getfixturevalue("worker_history")
