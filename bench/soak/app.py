"""The worker of a soak: skills of every executor, and a journal of what began and ended in which life.

The journal is the only witness of what ran in a process that was killed: a line is written in one piece before the
skill begins, and one after it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from avtomatika_worker import Handler, Outcome, PermanentError, TaskContext, Worker
from bench.soak.jobs import EVENT, WORKER_TYPE, answer, refusal

LIFE_VARIABLE: Final = "SOAK_LIFE"
JOURNAL_VARIABLE: Final = "SOAK_JOURNAL"
EVENTS: Final = {EVENT: {"type": "object"}}

worker = Worker(worker_type=WORKER_TYPE)


async def journal(ctx: TaskContext, call_next: Handler) -> Outcome:
    """Write down that a task began, and that it ended or was broken off."""
    note(ctx.task_id, "began")
    try:
        outcome = await call_next(ctx)
    except asyncio.CancelledError:
        note(ctx.task_id, "broke_off")
        raise
    note(ctx.task_id, "ended")
    return outcome


def note(task_id: str, what: str) -> None:
    """Append a line; writes of this size are never mixed with others."""
    line = {"at": time.time(), "life": os.environ[LIFE_VARIABLE], "task": task_id, "what": what}
    file = os.open(os.environ[JOURNAL_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


worker.add_middleware(journal)


@worker.skill
async def echo(number: int, salt: str) -> dict[str, Any]:
    """Return at once."""
    return answer("echo", number, salt)


@worker.skill(events=EVENTS)
async def stream(number: int, salt: str, events: int, ctx: TaskContext) -> dict[str, Any]:
    """Send events and progress, one after the other."""
    await _steps(events, 0.02, ctx)
    return answer("stream", number, salt)


@worker.skill(events=EVENTS)
async def slow(number: int, salt: str, events: int, ctx: TaskContext) -> dict[str, Any]:
    """Take seconds, so that kills find it running."""
    await _steps(events, 1.5, ctx)
    return answer("slow", number, salt)


async def _steps(events: int, pause: float, ctx: TaskContext) -> None:
    for step in range(events):
        await ctx.send_progress(step / events, f"step {step}")
        await ctx.send_event(EVENT, {"step": step})
        await asyncio.sleep(pause)


@worker.skill(events=EVENTS)
def thread(number: int, salt: str, events: int, ctx: TaskContext) -> dict[str, Any]:
    """Block a thread."""
    for step in range(events):
        ctx.send_event(EVENT, {"step": step})
        time.sleep(0.03)
    return answer("thread", number, salt)


@worker.skill(executor="process", events=EVENTS, max_tasks_per_child=100)
def process(number: int, salt: str, events: int, ctx: TaskContext) -> dict[str, Any]:
    """Compute in a process."""
    for step in range(events):
        ctx.send_progress(step / events)
        ctx.send_event(EVENT, {"step": step})
        sum(range(100_000))
    return answer("process", number, salt)


@worker.skill(executor="process", events=EVENTS)
def program(number: int, salt: str, events: int, ctx: TaskContext) -> dict[str, Any]:
    """Run a program in a session of its own, which a killed worker must not leave behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        for step in range(events):
            ctx.send_event(EVENT, {"step": step})
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2.0)
    finally:
        child.kill()
        child.wait()
    return answer("program", number, salt)


@worker.skill
async def large(number: int, salt: str) -> dict[str, Any]:
    """Return 100 kB."""
    return answer("large", number, salt)


@worker.skill
async def refuse(number: int, salt: str) -> None:
    """Fail in a way that is final."""
    del salt
    raise PermanentError(refusal(number))
