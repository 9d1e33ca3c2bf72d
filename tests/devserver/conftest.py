"""An orchestrator, and a worker reduced to its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, OrchestratorSettings
from avtomatika_worker.protocol.messages import SkillInfo
from devserver.support import ECHO, Start, WorkerClient


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    # A connection for each call, so that what is left of an earlier one plays no part.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
async def start(session: aiohttp.ClientSession) -> AsyncIterator[Start]:
    """Start an orchestrator and register a worker there: ``orchestrator, worker = await start(version="1.0b7")``."""
    async with AsyncExitStack() as stack:

        async def begin(
            settings: OrchestratorSettings | None = None,
            *,
            register: bool = True,
            skills: tuple[SkillInfo, ...] = (ECHO,),
            **options: Any,
        ) -> tuple[EmbeddedOrchestrator, WorkerClient]:
            orchestrator = await stack.enter_async_context(
                EmbeddedOrchestrator(settings, **{"poll_time": 0.05, **options})
            )
            worker = WorkerClient(orchestrator, session, skills=skills)
            if register:
                reply = await worker.register()
                assert reply.status == 200, reply
            return orchestrator, worker

        yield begin
