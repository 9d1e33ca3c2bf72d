"""Skills that save what they have done, in a loop, a thread and a process; a file lists the steps that were done."""

import asyncio
import os
import time
from pathlib import Path

from avtomatika_worker import TaskContext, TransientError, Worker

worker = Worker()


def note(log: str, step: int) -> None:
    with Path(log).open("a") as file:
        file.write(f"{step}\n")


def fail_at(step: int, at: int, flag: str) -> None:
    """Fail once at a step: the flag is a file."""
    if step == at and not os.path.exists(flag):  # noqa: PTH110
        Path(flag).touch()
        raise TransientError(f"step {step} fails once")


@worker.skill(version="1")
async def on_loop(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10):
    state = await ctx.checkpoint.load() or {"done": 0, "sum": 0}
    for step in range(state["done"], steps):
        fail_at(step, at, flag)
        note(log, step)
        state = {"done": step + 1, "sum": state["sum"] + step}
        await ctx.checkpoint.save(state)
    return state


@worker.skill(version="1")
def in_thread(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10):
    state = ctx.checkpoint.load() or {"done": 0, "sum": 0}
    for step in range(state["done"], steps):
        fail_at(step, at, flag)
        note(log, step)
        state = {"done": step + 1, "sum": state["sum"] + step}
        ctx.checkpoint.save(state)
    return state


@worker.skill(version="1", executor="process")
def in_process(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10):
    return in_thread(ctx, log, flag, at, steps)


@worker.skill(version="1", executor="process")
async def on_the_loop_of_a_process(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10):
    return await on_loop(ctx, log, flag, at, steps)


@worker.skill(version="1")
async def loop_on_loop(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10, seconds: float = 0.0):
    loop = ctx.resumable(range(steps), state={"sum": 0})
    async for step in loop:
        fail_at(step, at, flag)
        await asyncio.sleep(seconds)
        note(log, step)
        loop.state["sum"] += step
    return {"done": loop.done, **loop.state}


@worker.skill(version="1")
def loop_in_thread(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10, seconds: float = 0.0):
    loop = ctx.resumable(range(steps), state={"sum": 0})
    for step in loop:
        fail_at(step, at, flag)
        time.sleep(seconds)
        note(log, step)
        loop.state["sum"] += step
    return {"done": loop.done, **loop.state}


@worker.skill(version="1", executor="process")
def loop_in_process(ctx: TaskContext, log: str, flag: str, at: int, steps: int = 10):
    return loop_in_thread(ctx, log, flag, at, steps)
