"""The program's handlers for commands that orchestrators send over the WebSocket. Runs on the main loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker._waiting import in_pool, is_being_cancelled
from avtomatika_worker.protocol.messages import Command
from avtomatika_worker.tasks.arrivals import Arrivals

_log: Final = logging.getLogger("avtomatika_worker.commands")

CommandHandler = Callable[[Command], Any]
"""Takes a command; an ``async def``, or a plain ``def``, which is called in a thread."""

_AT_ONCE: Final = 16
"""Maximum number of handlers that run at the same time; further commands wait."""


@dataclass(frozen=True, slots=True)
class CommandHandlers:
    """The handlers by command name, and the commands that are waiting for them."""

    by_name: Mapping[str, CommandHandler] = field(default_factory=dict[str, CommandHandler])
    _arrivals: Arrivals[Command] = field(default_factory=Arrivals[Command])

    def take(self, command: Command) -> bool:
        """Accept a command, from any thread; return false if it has no handler."""
        if command.command not in self.by_name:
            return False
        if not self._arrivals.put(command):
            text = "command %.100r dropped: too many are waiting"
            _log.error(text, command.command, extra={"action": "command_dropped"})
        return True

    async def run(self) -> None:
        """Call handlers until cancelled; a failure is logged and stops nothing else."""
        room = asyncio.Semaphore(_AT_ONCE)
        threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="command")
        try:
            async with asyncio.TaskGroup() as group, aclosing(self._arrivals.take()) as commands:
                async for command in commands:
                    await room.acquire()
                    task = group.create_task(self._handle(command, threads), name=f"command {command.command}")
                    task.add_done_callback(lambda _: room.release())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _handle(self, command: Command, threads: ThreadPoolExecutor) -> None:
        handler = self.by_name[command.command]
        try:
            if inspect.iscoroutinefunction(handler):
                await handler(command)
            else:
                returned = await in_pool(threads, handler, command)
                if inspect.isawaitable(returned):
                    await returned
        except BaseException as error:  # user code: whatever it raises, the worker continues
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            _log.exception("the handler of command %.100r failed", command.command, extra={"action": "command_failed"})
