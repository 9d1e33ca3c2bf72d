"""Where a skill runs: ``async def`` on the main loop, plain ``def`` in the worker's own threads, or in a process."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import PermanentError
from avtomatika_worker.execution.batching import Batches
from avtomatika_worker.execution.containment import ExitedError, ends_if_forked
from avtomatika_worker.execution.context import TaskCancelledError, TaskContext, controls_of
from avtomatika_worker.execution.models import ModelPools
from avtomatika_worker.execution.processes.process_pool import Processes
from avtomatika_worker.execution.streams import StreamRun
from avtomatika_worker.narrowing import is_async_iterator, is_iterator
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.observability.tracing import Tracing
from avtomatika_worker.skills.batch import Batch
from avtomatika_worker.skills.skill import Skill

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Threads:
    """The worker's own thread pool for plain ``def`` skills, with one thread per slot."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="skill")

    async def run(self, func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run ``func`` in a thread with the caller's context variables, and return its result.

        A thread cannot be interrupted: on the first cancellation this still waits for ``func`` to end, on the second it
        does not.
        """
        context = contextvars.copy_context()
        future = self._pool.submit(context.run, _call, func, args, kwargs)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if future.cancel():  # it had not even started
                raise
            return await asyncio.shield(waiting)

    def close(self) -> None:
        """Release the threads without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    with ends_if_forked():
        try:
            return func(*args, **kwargs)
        except StopIteration as error:  # a future cannot carry it
            raise RuntimeError("the skill raised StopIteration") from error
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            raise ExitedError(error) from error


class Runners(msgspec.Struct, frozen=True):
    """Where skills run that need more than the main loop."""

    threads: Threads
    processes: Processes
    batches: Batches
    models: ModelPools = msgspec.field(default_factory=ModelPools)


async def run_skill(
    skill: Skill, ctx: TaskContext, runners: Runners, tracing: Tracing, extra: Mapping[str, Any] = _NOTHING
) -> Any:
    """Bind the skill's arguments and run it where it belongs; ``extra`` are additional keyword arguments.

    A skill that uses a model gets it first. Raises `InvalidInputError` for invalid params, `ModelLoadError` if the
    model cannot be loaded, ``CancelledError`` if the task was cancelled, and whatever the skill raises.
    """
    batch, in_process = skill.options.batch, skill.options.in_process
    if extra and (batch is not None or in_process):
        where = "runs in batches" if batch is not None else "runs in another process"
        raise PermanentError(f"a middleware passes {', '.join(extra)} to a skill that {where}")
    if batch is not None:
        return await _run_batched(runners.batches, skill, batch, ctx)
    if in_process:  # which also binds its arguments
        with tracing.span("skill"):
            return await runners.processes.run(skill, controls_of(ctx))
    with tracing.span("validate"):
        converted = skill.convert(controls_of(ctx).params)
    if skill.uses is None:
        return await _run_here(skill, ctx, runners, tracing, converted, extra)
    name = skill.uses.name_in(controls_of(ctx).params)
    async with runners.models.lend(skill.uses, name, [controls_of(ctx)]):
        return await _run_here(skill, ctx, runners, tracing, converted, extra)


async def _run_here(
    skill: Skill, ctx: TaskContext, runners: Runners, tracing: Tracing, converted: Any, extra: Mapping[str, Any]
) -> Any:
    """Run a skill in the worker's process."""
    args, kwargs = skill.fill(controls_of(ctx), converted)
    kwargs.update(extra)
    try:
        with tracing.span("skill"):
            if skill.stream is not None:
                return await _run_stream(
                    skill, StreamRun(skill.stream, controls_of(ctx)), runners.threads, args, kwargs
                )
            if skill.is_async:
                with ends_if_forked():
                    return await skill.func(*args, **kwargs)
            value = await runners.threads.run(skill.func, args, kwargs)
            # A plain decorator around an async def looks like a plain def, and returns the coroutine.
            return await value if inspect.iscoroutine(value) else value
    except TaskCancelledError as error:
        raise asyncio.CancelledError(*error.args) from None
    finally:
        restore_logging()


async def _run_batched(batches: Batches, skill: Skill, batch: Batch, ctx: TaskContext) -> Any:
    try:
        return await batches.run(skill, batch, ctx)
    except TaskCancelledError as error:
        raise asyncio.CancelledError(*error.args) from None


async def _run_stream(skill: Skill, run: StreamRun, threads: Threads, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Run a generator where it belongs; if a decorator changed its kind, drive what the call actually returns."""
    if skill.is_async:
        with ends_if_forked():
            value = skill.func(*args, **kwargs)
    else:
        value = await threads.run(run.called_in_thread, [skill.func, args, kwargs], {})
    with ends_if_forked():
        if inspect.iscoroutine(value):
            value = await value
        if is_async_iterator(value):
            return await run.drive(value)
    return await threads.run(run.drive_in_thread, [value], {}) if is_iterator(value) else value
