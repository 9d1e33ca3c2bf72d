"""A worker of this SDK in the test's own loop, at an embedded orchestrator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from avtomatika_worker import Worker
from avtomatika_worker.testing import EmbeddedOrchestrator

QUICK = {"WORKER_ID": "w1", "WORKER_ENABLE_WEBSOCKETS": "true", "WORKER_RESULT_DURABILITY": "off"}


@contextlib.asynccontextmanager
async def running(worker: Worker, **environ: str) -> AsyncIterator[EmbeddedOrchestrator]:
    """Run a worker until the block ends, with these variables besides."""
    async with EmbeddedOrchestrator() as orchestrator:
        variables = {**QUICK, "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token or "", **environ}
        main = asyncio.create_task(worker.main(worker.load_settings(variables), health_check=False))
        try:
            up = asyncio.create_task(orchestrator.wait_for_worker("w1"))
            await asyncio.wait({up, main}, return_when=asyncio.FIRST_COMPLETED)
            if main.done():
                up.cancel()
                await main
            await up
            yield orchestrator
        finally:
            await worker.shutdown()
            await main
