"""A worker of skills that leave a line for each of their runs; run by the end-to-end tests of long tasks."""

import asyncio
import os
from pathlib import Path

from avtomatika_worker import TaskContext, TransientError, Worker

PREFIX = os.environ["SKILL_PREFIX"]
MARKS = Path(os.environ["MARKS_DIR"])

worker = Worker(worker_type="e2e")


def begin(ctx: TaskContext) -> int:
    """Leave a line, and return how many the job has."""
    runs = MARKS / f"{ctx.job_id}.runs"
    with runs.open("a") as file:
        file.write(f"{ctx.task_id}\n")
    return len(runs.read_text().splitlines())


@worker.skill(PREFIX + "render")
async def render(seconds: float, ctx: TaskContext) -> dict[str, int]:
    """Take a while, with progress."""
    run = begin(ctx)
    for step in range(10):
        await ctx.send_progress(step / 10, f"step {step}")
        await asyncio.sleep(seconds / 10)
    return {"run": run}


@worker.skill(PREFIX + "flaky")
async def flaky(ctx: TaskContext) -> dict[str, int]:
    """Fail the first time."""
    run = begin(ctx)
    if run == 1:
        raise TransientError("the first time never works")
    return {"run": run}
