"""Skills that send events from a thread and from a process."""

from __future__ import annotations

from avtomatika_worker import TaskContext, Worker

worker = Worker()


@worker.skill(executor="process")
def in_process(ctx: TaskContext) -> None:
    ctx.send_event("alert", {"n": 1}, 2, None, {"m": 1}, "holon-7")


@worker.skill
def in_thread(ctx: TaskContext) -> None:
    ctx.send_event("alert", {"n": 1}, 2, None, {"m": 1}, "holon-7")
