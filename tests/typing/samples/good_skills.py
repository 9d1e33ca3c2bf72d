"""What users write: every form of the decorator, and what it leaves of the function. No checker may complain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, assert_type

from pydantic import BaseModel

from avtomatika_worker import (
    Batch,
    CancelReason,
    InvalidInputError,
    PermanentError,
    Sent,
    SkillBlueprint,
    TaskCancelledError,
    TaskContext,
    TaskError,
    TransientError,
    Worker,
)

worker = Worker(
    worker_type="image-processor",
    worker_id="worker-1",
    max_concurrent_tasks=4,
    skills_dir="skills",
    skill_dependencies={"resize": ["model-a"]},
    settings={"heartbeat_interval": 5},
)
blueprint = SkillBlueprint("pictures")


class ResizeParams(BaseModel):
    width: int
    height: int = 100


@dataclass
class Size:
    width: int
    height: int


@worker.skill
async def bare(params: ResizeParams, ctx: TaskContext) -> Size:
    await ctx.send_progress(0.5, "half")
    return Size(params.width, params.height)


@worker.skill
def bare_sync(url: str, threshold: float = 0.5, *, ctx: TaskContext) -> dict[str, float]:
    ctx.send_progress(0.5)
    assert_type(ctx.send_event("alert", {"url": url}), Sent)
    return {"score": threshold}


@worker.skill()
async def called(params: ResizeParams) -> dict[str, Any]:
    """Resize a picture."""
    return {"status": "success", "data": {"width": params.width}}


@worker.skill(
    "with_arguments",
    type="picture",
    description="Rates a picture",
    version="1.2",
    input_schema={"type": "object"},
    output_schema=Size,
    events={"alert": {"type": "object"}, "size": Size},
    output_statuses=["needs_review"],
    timeout=30,
    max_concurrent=2,
    price=0.5,
    category="AI",
)
async def with_arguments(params: dict[str, Any], ctx: TaskContext, **rest: object) -> Size:
    return Size(1, 2)


@blueprint.skill(timeout=1.5, executor="thread", events_schema={"alert": {"type": "object"}})
def from_blueprint(params: Size, task_id: str, priority: float) -> str:
    return f"{task_id}: {params.width * priority}"


@blueprint.skill("renamed")
async def bare_name(first: int, /, second: str = "", *, third: bytes | None = None) -> list[str]:
    return [second] * first


worker.include_blueprint(blueprint)


async def the_signature_is_kept(ctx: TaskContext) -> None:
    assert_type(await bare(ResizeParams(width=1), ctx), Size)
    assert_type(bare_sync("https://example.org", ctx=ctx), dict[str, float])
    keeps_parameters: Callable[[ResizeParams, TaskContext], Coroutine[Any, Any, Size]] = bare
    assert_type(await keeps_parameters(ResizeParams(width=1), ctx), Size)
    assert_type(await with_arguments({"width": 1}, ctx, anything=3), Size)
    assert_type(from_blueprint(Size(1, 2), "task", 0.5), str)
    assert_type(await bare_name(2, second="x", third=b""), list[str])


@worker.skill
def knows_its_task(ctx: TaskContext) -> None:
    assert_type(ctx.task_id, str)
    assert_type(ctx.params, dict[str, Any])
    assert_type(ctx.deadline, float | None)
    assert_type(ctx.cancelled, bool)
    assert_type(ctx.cancel_reason, CancelReason | None)
    ctx.send_progress("task", "job", 0.5, "the older form")
    ctx.send_progress(progress=1, message="whole numbers too")
    ctx.add_to_hot_cache("model-a")
    ctx.raise_if_cancelled()


@worker.skill
async def fails(params: ResizeParams) -> None:
    if params.width < 0:
        raise InvalidInputError("width is negative", {"path": "$.width"})
    if params.width > 10_000:
        raise PermanentError("too large")
    try:
        raise TransientError("try again", details={"after": 3})
    except TaskError as error:
        assert_type(error.code, str)
        assert_type(error.message, str)
        assert_type(error.retryable, bool)
        assert_type(error.details, dict[str, Any])
    except TaskCancelledError:
        raise


class Model:
    """What is loaded once."""


class Pool:
    """What is opened and closed."""


@worker.resource
def load_model(pool: Pool) -> Model:
    return Model()


@worker.resource()
async def open_pool() -> AsyncIterator[Pool]:
    yield Pool()


@blueprint.resource
def borrowed() -> Iterator[Pool]:
    yield Pool()


@worker.skill(batch=Batch(max_size=8, key=lambda params: params.width, cost=lambda params: params.width, max_cost=100))
def many(params: list[Size], model: Model, ctxs: list[TaskContext]) -> list[int | Exception]:
    return [each.width for each in params]


@worker.skill(executor="process", max_tasks_per_child=100, gpus=0.5)
def predicts(text: str, model: Model, ctx: TaskContext) -> dict[str, str]:
    assert_type(ctx.resource(Model), Model)
    return {"text": text}


assert_type(load_model(Pool()), Model)
assert_type(open_pool(), AsyncIterator[Pool])


class Weights:
    """A model."""


@worker.model
def load_weights(name: str) -> Weights:
    return Weights()


@blueprint.model(max_loaded=2, memory="8GiB", keep_alive="10m", warm_up=["a"], names=["a", "b"], announce="per_model")
async def load_more(name: str) -> AsyncIterator[Weights]:
    yield Weights()


@worker.skill(model_from="checkpoint")
def weigh(checkpoint: str, model: Weights) -> float:
    return 1.0


assert_type(load_weights("a"), Weights)
assert_type(load_more("a"), AsyncIterator[Weights])
assert_type(weigh("a", Weights()), float)
