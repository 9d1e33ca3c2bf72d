"""The checkpoints of a task in a skill process: the worker keeps them and decides when to write one."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from avtomatika_worker.checkpoints.keeper import Found
from avtomatika_worker.checkpoints.saved_state import Kind, State
from avtomatika_worker.execution.preempting import Preempting
from avtomatika_worker.world import REAL, World

_T = TypeVar("_T")


class RemoteDesk:
    """Passes checkpoints to the worker, even those not due yet: they may be needed if this process is killed."""

    def __init__(
        self,
        notify: Callable[..., None],
        ask: Callable[..., Future[Any]],
        preempting: Preempting,
        world: World = REAL,
    ) -> None:
        self._notify = notify
        self._ask = ask
        self._preempting = preempting
        self._monotonic = world.monotonic
        self._guard = threading.Lock()
        self._due_at = -math.inf
        self._hurried = False

    def is_due(self) -> bool:
        """Whether the next save will be written at once, as far as this process knows."""
        with self._guard:
            if self._preempting.noticed and not self._hurried and self._due_at < math.inf:
                return True
            return self._monotonic() >= self._due_at

    def defer(self, state: State) -> None:
        """Have the worker write a state when the next one is due."""
        self._notify("checkpoint_defer", state.kind.value, state.content)

    def begin(self, state: State, files: Sequence[str]) -> asyncio.Future[bool]:
        """Have the worker write a checkpoint."""
        stored: Future[bool] = Future()
        with self._guard:
            self._due_at, self._hurried = math.inf, self._preempting.noticed
        asked = self._ask("checkpoint_save", state.kind.value, state.content, list(files))
        asked.add_done_callback(lambda answer: self._answered(answer, stored))
        return asyncio.wrap_future(stored)

    async def save(self, state: State, files: Sequence[str]) -> bool:
        """Have the worker write a checkpoint, and return whether it was stored."""
        return await self.begin(state, files)

    async def load(self) -> Found | None:
        """Have the worker load the newest checkpoint, with its files in the task's directory."""
        answer = await asyncio.wrap_future(self._ask("checkpoint_load"))
        if answer is None:
            return None
        kind, content, files = answer
        return Found(State(Kind(kind), content), tuple(files))

    async def reject(self, problem: str) -> None:
        """Reject a checkpoint that was loaded."""
        await asyncio.wrap_future(self._ask("checkpoint_reject", problem))

    def in_loop(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do ``work`` and wait for it, in a thread without a loop."""
        return asyncio.run(work())

    def _answered(self, answer: Future[Any], stored: Future[bool]) -> None:
        """Take the worker's answer, in the listening thread."""
        error = answer.exception()
        wait = 0.0 if error is not None else answer.result()[1]
        with self._guard:
            self._due_at = self._monotonic() + wait
        if not stored.set_running_or_notify_cancel():
            return
        if error is not None:
            stored.set_exception(error)
        else:
            stored.set_result(answer.result()[0])
