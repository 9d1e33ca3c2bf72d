"""What users write around their skills: middlewares, own ways to run a worker. No checker may complain."""

import asyncio
import logging
import time
from pathlib import Path
from typing import NoReturn, assert_type

from avtomatika_worker import (
    Cancelled,
    ConfigError,
    Failed,
    Handler,
    Middleware,
    Outcome,
    SkillDefinitionError,
    SkillLoadError,
    Succeeded,
    TaskContext,
    TaskContextFilter,
    Worker,
    WorkerError,
)

worker = Worker(skills_dir=Path("skills"))


async def measure(ctx: TaskContext, call_next: Handler) -> Outcome:
    began = time.monotonic()
    outcome = await call_next(ctx)
    assert_type(outcome, Outcome)
    match outcome:
        case Succeeded(data=data):
            outcome = Succeeded({**data, "seconds": time.monotonic() - began})
        case Failed(code=code):
            assert_type(code, str)
        case Cancelled():
            pass
    return outcome


async def refuse(ctx: TaskContext, call_next: Handler) -> Failed:
    """A middleware may promise less than every outcome."""
    return Failed("PERMANENT_ERROR", f"{ctx.skill} is closed")


class Limit:
    """A middleware may be an object."""

    def __init__(self, most: int) -> None:
        self._slots = asyncio.Semaphore(most)

    async def __call__(self, ctx: TaskContext, call_next: Handler) -> Outcome:
        async with self._slots:
            return await call_next(ctx)


middlewares: list[Middleware] = [measure, refuse, Limit(3)]
for middleware in middlewares:
    worker.add_middleware(middleware)
worker.add_middleware(Limit(2))


async def inside_of_a_program() -> None:
    logging.getLogger().addFilter(TaskContextFilter())
    running = asyncio.create_task(worker.main())
    assert_type(await worker.check_for_cancellation("task"), bool)
    await worker.shutdown()
    await running


def as_a_program() -> NoReturn:
    try:
        worker.load_settings({"WORKER_TYPE": "x"})
    except ConfigError as error:
        assert_type(error.problems, tuple[str, ...])
    except (SkillDefinitionError, SkillLoadError) as error:
        assert_type(error.problem, str)
    except WorkerError:
        raise
    worker.run()
