"""The work given to a skill process: one task, or several that form a batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.controls import Cancelling
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.execution.preempting import Preempting


class JobTask:
    """One task of a job, with the number by which the worker knows it."""

    def __init__(self, number: int, facts: dict[str, Any]) -> None:
        self.number: int = number
        self.facts: dict[str, Any] = facts
        self.cancelling: Cancelling = Cancelling()
        self._preempted: bool = facts["preempted"]
        self._preempting: Preempting | None = None

    def preempting(self, loop: asyncio.AbstractEventLoop | None) -> Preempting:
        """Return the task's preemption state; ``loop`` is the one that its skill runs on, if any."""
        self._preempting = Preempting(loop, Children().start)
        if self._preempted:  # read after the line above: `preempt` does it in the opposite order
            self._preempting.notice()
        return self._preempting

    def preempt(self) -> None:
        """Notify the task that this machine is about to be taken away."""
        self._preempted = True
        if self._preempting is not None:
            self._preempting.notice()


class Job:
    """Tasks as received. The listening thread can cancel them from that moment on."""

    def __init__(self, first: int, facts: Sequence[dict[str, Any]]) -> None:
        self.tasks: dict[int, JobTask] = {number: JobTask(number, each) for number, each in enumerate(facts, first)}
        self._running: asyncio.Task[Any] | None = None

    @property
    def skill(self) -> str:
        """The skill's name."""
        name: str = next(iter(self.tasks.values())).facts["task"]["type"]
        return name

    @property
    def cancelled(self) -> bool:
        """Whether every task should stop."""
        return all(each.cancelling.reason is not None for each in self.tasks.values())

    def cancel(self, number: int, reason: CancelReason) -> None:
        """Ask a task to stop. Cancelling the last one cancels the call."""
        self.tasks[number].cancelling.ask(reason)
        running = self._running  # read after the line above: `run` does it in the opposite order
        if running is not None and self.cancelled:
            with contextlib.suppress(RuntimeError):  # its loop has just been closed
                running.get_loop().call_soon_threadsafe(running.cancel)

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a skill's coroutine so that it can be cancelled."""
        self._running = asyncio.current_task()
        try:
            if self.cancelled:  # the cancellation came before there was a task to cancel
                work.close()
                raise asyncio.CancelledError
            return await work
        finally:
            self._running = None
