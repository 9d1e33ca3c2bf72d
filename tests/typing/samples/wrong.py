"""Mistakes that users make. Each marked line, and no other, must be reported by every checker."""

from typing import assert_type

from avtomatika_worker import (
    Failed,
    Handler,
    Outcome,
    PermanentError,
    SkillBlueprint,
    Succeeded,
    TaskContext,
    TaskFiles,
    Worker,
)
from avtomatika_worker.testing import Fault, StartHarness, WorkerHarness, assert_contract

worker = Worker(worker_type="test")
blueprint = SkillBlueprint("test")

Worker(worker_typ="test")  # expect-error: no such keyword
Worker("test", "4")  # expect-error: a number, by position too
Worker(max_concurrent_tasks="4")  # expect-error: a number
Worker(skill_dependencies={"resize": 3})  # expect-error: a list of names


@worker.skill(timeout="30")  # expect-error: seconds
def wrong_timeout() -> None: ...


@worker.skill(max_concurrent=0.5)  # expect-error: whole tasks
def wrong_limit() -> None: ...


@worker.skill(executor="fork")  # expect-error: thread or process
def wrong_executor() -> None: ...


@worker.skill(batch=8)  # expect-error: a Batch
def wrong_batch() -> None: ...


@worker.skill(max_tasks_per_child="2")  # expect-error: a number
def wrong_count() -> None: ...


@worker.skill(executor="process", gpus="all")  # expect-error: a number
def wrong_gpus() -> None: ...


@worker.skill(output_statuses=5)  # expect-error: not even a list
def wrong_statuses() -> None: ...


@blueprint.skill(events=["alert"])  # expect-error: maps names to schemas
def wrong_events() -> None: ...


@blueprint.skill(3)  # expect-error: a name or a function
def wrong_name() -> None: ...


@worker.skill
async def resize(width: int, *, ctx: TaskContext) -> str:
    await ctx.send_progress("half")  # expect-error: a fraction
    ctx.send_event({"level": 3})  # expect-error: its name comes first
    ctx.task_ids  # expect-error: no such attribute  # noqa: B018
    return "done"


@worker.skill(price=1)
def rate(url: str) -> float:
    return 0.5


async def calls(ctx: TaskContext) -> None:
    await resize("3", ctx=ctx)  # expect-error: the decorator keeps the types of parameters
    await resize(3)  # expect-error: and which are required
    rate(3)  # expect-error: with arguments too
    assert_type(rate(""), int)  # expect-error: and the result's
    raise PermanentError("no", "details")  # expect-error: details are a mapping


async def without_next(ctx: TaskContext) -> Outcome:
    return Succeeded({})


async def wrong_result(ctx: TaskContext, call_next: Handler) -> str:
    await call_next(ctx)
    return "done"


def not_async(ctx: TaskContext, call_next: Handler) -> Outcome:
    return Failed("PERMANENT_ERROR", "no")


async def forgets(ctx: TaskContext, call_next: Handler) -> Outcome:
    return await call_next()  # expect-error: takes the context


worker.add_middleware(without_next)  # expect-error: takes call_next
worker.add_middleware(wrong_result)  # expect-error: returns an outcome
worker.add_middleware(not_async)  # expect-error: is awaited
worker.include_blueprint(worker)  # expect-error: a blueprint
Succeeded(["data"])  # expect-error: data are a dict
Failed("PERMANENT_ERROR")  # expect-error: and a message


async def files(files: TaskFiles) -> None:
    text: bytes = await files.read("a")  # expect-error: a text, without "rb"
    await files.read("a", "w")  # expect-error: no mode to read with
    await files.write("a", 3)  # expect-error: a text or bytes
    files.sync.read("a").decode()  # expect-error: a text, too
    text.decode()


async def tests(h: WorkerHarness, worker_harness: StartHarness) -> None:
    result = await h.run("resize", {}, deadline="soon")  # expect-error: deadline_in, in seconds
    result.error.code  # expect-error: there may be none  # noqa: B018
    result.progress[0].percent  # expect-error: a fraction  # noqa: B018
    h.store("a.txt", 3)  # expect-error: no content
    await worker_harness(worker, setings={})  # expect-error: no such keyword
    Fault("result", "explode")  # expect-error: no such fault
    assert_contract("contract.json", worker)  # expect-error: the worker comes first
