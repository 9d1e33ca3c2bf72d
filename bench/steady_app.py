"""The worker of `bench.steady`: skills that return, report progress, fail, block a thread, and return much."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from typing import Any

from avtomatika_worker import TaskContext, TransientError, Worker

worker = Worker(worker_type="steady")


@worker.skill
async def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Return the params."""
    return params


@worker.skill(events={"step": {"type": "object"}})
async def report(steps: int, ctx: TaskContext) -> dict[str, int]:
    """Send progress and events."""
    for number in range(steps):
        await ctx.send_progress(number / steps, f"step {number}")
        await ctx.send_event("step", {"number": number})
        await asyncio.sleep(0.01)
    return {"steps": steps}


@worker.skill
async def fail() -> None:
    """Fail in a way that is tried again."""
    raise TransientError("it never works")


@worker.skill
def block(seconds: float) -> dict[str, float]:
    """Block a thread."""
    time.sleep(seconds)
    return {"slept": seconds}


@worker.skill
async def large(size: int) -> dict[str, str]:
    """Return much."""
    return {"text": "x" * size}


@worker.skill
async def memory() -> dict[str, Any]:
    """Return what holds memory; only with ``SOAK_TRACE``, for finding a leak (tracing slows everything down)."""
    if not tracemalloc.is_tracing():
        return {}
    lines = tracemalloc.take_snapshot().statistics("lineno")[:40]
    return {"lines": [str(line) for line in lines]}


if os.environ.get("SOAK_TRACE"):
    tracemalloc.start()
