"""Skills that touch all that a worker's threads share."""

import asyncio

from avtomatika_worker import TaskContext, TaskFiles, Worker, WorkerCommand


def in_a_process(n: int) -> dict[str, int]:
    return {"sum": sum(range(n))}


async def on_the_loop(n: int, ctx: TaskContext, task_files: TaskFiles) -> dict[str, int]:
    await task_files.write("notes.txt", "x" * n)
    for i in range(n):
        ctx.send_event("step", {"i": i})
        ctx.send_progress(i / n, "on the way")
        await asyncio.sleep(0)
    await asyncio.to_thread(ctx.send_progress, 1.0, "from a thread")
    return {"n": n}


def in_a_thread(n: int, ctx: TaskContext) -> dict[str, object]:
    ctx.add_to_hot_cache(f"model-{n}")
    for i in range(n):
        ctx.send_event("step", {"i": i})
        ctx.send_progress(i / n, "on the way")
        ctx.add_cost("steps", 1)
        ctx.raise_if_cancelled()
        ctx.checkpoint.save({"i": i, "preempted": ctx.preempted}, now=i == 0)
    ctx.on_preemption(ctx.raise_if_cancelled)
    ctx.remove_from_hot_cache(f"model-{n}")
    return {"n": n, "text": "x" * 1000}


def notify(worker: Worker, n: int) -> None:
    worker.add_to_hot_skills(f"weights-{n}")
    worker.emit_event({"event_type": "noted", "payload": {"n": n}})
    worker.remove_from_hot_skills(f"weights-{n}")
    assert f"weights-{n}" not in worker.get_hot_skills_state()


def fail(n: int):
    raise ValueError(n)


async def never_ends(n: int):
    await asyncio.Event().wait()


SKILLS = ("in_a_process", "on_the_loop", "in_a_thread", "notifies", "fail", "never_ends")


def make_worker() -> Worker:
    worker = Worker(worker_type="test")
    worker.skill(executor="process")(in_a_process)
    for skill in (on_the_loop, in_a_thread):
        worker.skill(events={"step": {"type": "object"}})(skill)
    worker.skill(fail)
    worker.skill(never_ends)

    @worker.skill
    def notifies(n: int) -> dict[str, int]:
        notify(worker, n)
        return {"n": n}

    @worker.on_command("note")
    def note(command: WorkerCommand) -> None:
        notify(worker, command.params["n"])

    @worker.on_command("note_on_loop")
    async def note_on_loop(command: WorkerCommand) -> None:
        notify(worker, command.params["n"])

    return worker
