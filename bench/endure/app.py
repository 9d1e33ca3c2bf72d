"""The worker of an endurance run: the soak's skills, and what only takes part here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from avtomatika_worker import TaskContext, TaskFiles
from bench.soak.app import EVENTS, worker
from bench.soak.jobs import EVENT, answer

__all__ = ["worker"]


@worker.skill(events=EVENTS)
async def long(number: int, salt: str, seconds: float, ctx: TaskContext) -> dict[str, Any]:
    """Take longer than the orchestrator waits."""
    await ctx.send_event(EVENT, {"step": 0})
    await asyncio.sleep(seconds)
    return answer("long", number, salt)


@worker.skill
async def tokens(number: int, salt: str, count: int) -> AsyncIterator[str]:
    """Stream a text."""
    for part in range(count):
        await asyncio.sleep(0.02)
        yield f"{number}/{salt}/{part} "


@worker.skill
async def capitals(number: int, salt: str, source: Path, files: TaskFiles) -> dict[str, Any]:
    """Write a file's text in capitals to another one."""
    text = await files.read(source)
    return {**answer("capitals", number, salt), "file": await files.write("loud.txt", text.upper())}
