"""The worker of deploy/ and of `make cluster`: `worker run --app app:worker`."""

import asyncio

from avtomatika_worker import TaskContext, TaskFiles, Worker

worker = Worker(worker_type="demo")


@worker.skill()
async def pause(seconds: float, number: int, ctx: TaskContext) -> dict[str, object]:
    """Do nothing for a while, and say who did it."""
    await asyncio.sleep(seconds)
    return {"number": number, "worker": ctx.worker_id}


@worker.skill()
async def write_report(number: int, files: TaskFiles) -> dict[str, object]:
    """Write a file; it goes to the object store, and its URI to the orchestrator."""
    return {"number": number, "report": await files.write(f"report-{number}.txt", f"Report {number}\n" * 100)}
