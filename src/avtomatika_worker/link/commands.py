"""Receives the orchestrator's commands over the WebSocket, such as cancellations. Runs in the link thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from avtomatika_worker.errors import MalformedMessageError, TransportError
from avtomatika_worker.link.access_tokens import token_renewed
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.policy.token_bucket import TokenBucket
from avtomatika_worker.protocol.codec import commands_path
from avtomatika_worker.protocol.messages import CANCEL_TASK, Command
from avtomatika_worker.protocol.replies import decode_command
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.transport.websocket import MAX_MESSAGE, listen

COMMANDS_PER_SECOND: Final = 1_000
"""Maximum commands to read per second, on average; beyond that the orchestrator has to wait."""

_REST: Final = 0.1
"""Minimum pause in seconds when there are too many commands."""

_log: Final = logging.getLogger("avtomatika_worker.commands")


class Commands:
    """Listens to one orchestrator. ``on_cancel`` receives the ids to cancel.

    ``on_command`` receives all other commands and returns False for unknown ones.
    """

    def __init__(
        self,
        link: Link,
        on_cancel: Callable[[Link, tuple[str, ...]], None],
        *,
        tls: TlsFiles | None = None,
        max_message: int = MAX_MESSAGE,
        on_command: Callable[[Command], bool] = lambda _: False,
    ) -> None:
        self._link = link
        self._on_cancel = on_cancel
        self._on_command = on_command
        self._tls = tls
        self._max_message = min(max_message, MAX_MESSAGE)
        self.connected: bool = False
        self._shown: str | None = None
        self._pace = TokenBucket(COMMANDS_PER_SECOND)

    async def run(self) -> None:
        """Keep a WebSocket open while the worker is registered, until cancelled."""
        backoff = Backoff(self._link.settings.calls)
        while True:
            await self._link.ready.wait()
            try:
                await self._listen(backoff)
                _log.debug("%s closed the WebSocket", self._link.url)
            except TransportError as error:
                self._disconnected()
                still_good = self._link.credentials.is_good(self._shown)
                if await token_renewed(self._link, self._shown, error.status):
                    if still_good:
                        self._link.contact_broken()
                    continue
                _log.log(
                    logging.WARNING if backoff.attempts == 0 else logging.DEBUG,
                    "no WebSocket to %s: %s (cancellations then arrive with heartbeats)",
                    self._link.url,
                    error,
                    extra={"action": "websocket_failed"},
                )
                await asyncio.sleep(delay_after(backoff, error, self._link.world))
            else:
                self._disconnected()
                await asyncio.sleep(delay_after(backoff, TransportError("closed"), self._link.world))

    def _disconnected(self) -> None:
        """Treat the end of an open WebSocket as a loss of contact: an orchestrator's restart shows here first.

        The orchestrator may have lost the worker and be back before any call fails (RXON.md, Behaviour 4).
        """
        if self.connected:
            self.connected = False
            self._link.contact_broken()

    async def _listen(self, backoff: Backoff) -> None:
        url = "ws" + self._link.url.removeprefix("http") + commands_path(self._link.worker_id)

        def opened() -> None:
            self.connected = True
            backoff.succeeded()

        self._shown = self._link.credentials.current
        listening = listen(url, self._link.headers(), tls=self._tls, max_message=self._max_message, on_open=opened)
        async with aclosing(listening) as messages:
            async for message in messages:
                self._read(message)
                if (wait := self._pace.take(self._link.world.monotonic())) > 0:
                    await asyncio.sleep(wait + _REST)

    def _read(self, message: str | bytes) -> None:
        try:
            self._take(decode_command(message))
        except MalformedMessageError as error:
            text = "%s sent a malformed command: %s"
            self._link.faults.log(_log, logging.WARNING, text, self._link.url, error, action="command_malformed")

    def _take(self, command: Command) -> None:
        ids = tuple(i for i in (command.task_id, command.job_id) if i)
        if command.command == CANCEL_TASK and ids:
            # The task id is the precise one; the job id would also stop the other branches of a parallel job.
            self._on_cancel(self._link, ids[:1])
        elif not self._on_command(command):
            self._link.faults.log(
                _log, logging.INFO, "unknown command %.100r ignored", command.command, action="command_unknown"
            )
