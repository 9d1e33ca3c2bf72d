"""Settles a task's checkpoint when the task ends."""

from __future__ import annotations

import asyncio

import msgspec

from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.report import is_retried
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.tasks.running import RunningTask


async def with_checkpoint(running: RunningTask, result: TaskResult, outbox: Outbox) -> TaskResult:
    """Return the result once its checkpoint is saved for another attempt, or else marked to remove the checkpoint.

    The task may be handed out again meanwhile: the result answers the newest id. If the worker shuts down meanwhile,
    the outbox gets the result.
    """
    keeper = running.controls.end_saving()
    if keeper is None:
        return result
    wanted = is_retried(result)
    try:
        await keeper.settle(wanted=wanted)
    except asyncio.CancelledError:
        outbox.take_over(running.link, _addressed(result, running))
        raise
    if keeper.used and not wanted:
        result = msgspec.structs.replace(result, checkpoint=keeper.key)
    return _addressed(result, running)


def _addressed(result: TaskResult, running: RunningTask) -> TaskResult:
    return msgspec.structs.replace(result, task_id=running.task.task_id)
