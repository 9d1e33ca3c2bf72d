"""A worker whose skill yields tokens at a steady rate, as a language model does."""

import asyncio
import time
from collections.abc import AsyncIterator

from avtomatika_worker import Worker

worker = Worker(worker_type="bench", max_concurrent_tasks=8)


async def pace(count: int, rate: float) -> AsyncIterator[int]:
    """Count, each number when it is due: whoever takes long is not waited for."""
    began = time.monotonic()
    for number in range(count):
        wait = began + number / rate - time.monotonic()
        await asyncio.sleep(max(0.0, wait))
        yield number


@worker.skill
async def tokens(count: int, rate: float) -> AsyncIterator[str]:
    async for number in pace(count, rate):
        yield f"token-{number} "


@worker.skill
async def tokens_at_once(count: int, rate: float) -> str:
    """Do the same work, and stream nothing."""
    return "".join([f"token-{number} " async for number in pace(count, rate)])
