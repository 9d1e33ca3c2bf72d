"""What becomes of a task's checkpoint when the task ends."""

from __future__ import annotations

import asyncio

import msgspec

from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.report import is_retried
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.tasks.running import RunningTask


async def with_checkpoint(running: RunningTask, result: TaskResult, outbox: Outbox) -> TaskResult:
    """Return a result once the task's checkpoint is what another attempt needs, or as one that ends the checkpoint.

    When the worker goes down meanwhile, the outbox gets the result.
    """
    keeper = running.controls.keeper
    if keeper is None:
        return result
    wanted = is_retried(result)
    try:
        await keeper.settle(wanted=wanted)
    except asyncio.CancelledError:
        outbox.take_over(running.link, result)
        raise
    return result if wanted or not keeper.used else msgspec.structs.replace(result, checkpoint=keeper.key)
