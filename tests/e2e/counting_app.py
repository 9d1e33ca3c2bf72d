"""A worker whose skills note each time they are begun, for tests that count."""

import asyncio
import os
import time
from pathlib import Path

from avtomatika_worker import Worker

PREFIX = os.environ.get("SKILL_PREFIX", "")
BEGUN = os.open(Path(os.environ.get("MARKS_DIR", ".")) / "begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

worker = Worker(worker_type="counting")


@worker.skill(PREFIX + "note")
async def note(job_id: str, seconds: float = 0.0) -> dict[str, str]:
    """Note that it was begun, and take a while."""
    os.write(BEGUN, f"{job_id}\n".encode())
    await asyncio.sleep(seconds)
    return {"job": job_id}


@worker.skill(PREFIX + "stall")
async def stall(seconds: float) -> dict[str, float]:
    """Do what no async skill should."""
    time.sleep(seconds)  # noqa: ASYNC251 - the mistake this is for
    return {"stalled": seconds}
