"""A worker whose skills yield; run against published orchestrators."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from avtomatika_worker import Worker

PREFIX = os.environ.get("SKILL_PREFIX", "")

worker = Worker(worker_type="e2e")


@worker.skill(PREFIX + "tokens")
async def tokens(count: int, rate: float) -> AsyncIterator[str]:
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield f"token-{number} "


@worker.skill(PREFIX + "speak")
async def speak(prompt: str) -> AsyncIterator[str]:
    yield prompt
