"""Delivers results: the first attempt on the main loop, every further one in the link thread, off the task's slot."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from avtomatika_worker.errors import (
    MalformedMessageError,
    RejectedError,
    TransportError,
    UnsendableValueError,
    WorkerError,
)
from avtomatika_worker.execution.report import replace_refused, replace_unsendable
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.protocol.messages import TaskResult
from avtomatika_worker.services.crossing import Board
from avtomatika_worker.services.link import Link, delay_after

_log: Final = logging.getLogger("avtomatika_worker.outbox")

_WAIT: Final = frozenset({401, 403, 404, 408, 425, 429})
"""Refusals that time may heal: a token is rotated, a proxy comes back, a minute passes. 5xx too."""


@dataclass(slots=True)
class Delivery:
    """A result on its way. Each attempt is signed anew (RXON.md, "Signing")."""

    link: Link
    result: TaskResult
    backoff: Backoff
    next_delay: float = 0.0
    created: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Seconds since the task ended."""
        return time.monotonic() - self.created


class Outbox:
    """Holds every result until its orchestrator has accepted or refused it for good, or it is older than ``max_age``.

    Results go out side by side: a slow or refused one never holds others back.
    """

    def __init__(self, *, max_age: float) -> None:
        self._max_age = max_age
        self._inbox: Board[int] = Board(0)
        self._waiting: list[Delivery] = []
        self._retrying = 0

    @property
    def depth(self) -> int:
        """How many results wait for another attempt."""
        return len(self._waiting) + self._retrying

    async def deliver(self, link: Link, result: TaskResult) -> None:
        """Deliver a result, or take it over: on return it is the outbox's. Called on the main loop."""
        delivery = Delivery(link, result, Backoff(link.settings.calls))
        if not link.results_held_for():
            delay = await self._attempt(delivery)
            if delay is None:
                return
            delivery.next_delay = delay
        self._waiting.append(delivery)
        self._inbox.touch()

    async def run(self) -> None:
        """Retry what could not be delivered at once; for ever. Runs in the link thread."""
        async with asyncio.TaskGroup() as retries:
            seen = -1
            while True:
                while self._waiting:
                    self._retrying += 1
                    retries.create_task(self._retry(self._waiting.pop(0)))
                seen = await self._inbox.changed(seen, None)

    async def drained(self, timeout: float) -> bool:
        """Wait until nothing waits any more, at most ``timeout`` seconds; return whether that is so."""
        until = time.monotonic() + timeout
        seen = self._inbox.version
        while self.depth:
            left = until - time.monotonic()
            if left <= 0:
                return False
            seen = await self._inbox.changed(seen, left)
        return True

    async def _retry(self, delivery: Delivery) -> None:
        delay: float | None = delivery.next_delay
        try:
            while delay is not None:
                await asyncio.sleep(max(delay, delivery.link.results_held_for()))
                delay = await self._attempt(delivery)
                if delay is not None and delivery.age > self._max_age:
                    _log.error(
                        "result of task %s (%s) given up after %.0f s and %d attempts at %s",
                        delivery.result.task_id,
                        delivery.result.status,
                        delivery.age,
                        delivery.backoff.attempts,
                        delivery.link.url,
                        extra={"action": "result_expired"},
                    )
                    return
        finally:
            self._retrying -= 1
            self._inbox.touch()

    async def _attempt(self, delivery: Delivery) -> float | None:
        """Try once; return the seconds to wait before the next attempt, None when there shall be none."""
        try:
            reply = await delivery.link.send_result(delivery.result)
        except UnsendableValueError as error:
            _log.error(
                "the result of task %s cannot be sent: %s",
                delivery.result.task_id,
                error,
                extra={"action": "result_unsendable"},
            )
            delivery.result = replace_unsendable(delivery.result, error)
            return await self._attempt(delivery)
        except RejectedError as error:
            if error.status >= 500 or error.status in _WAIT:
                return self._failed(delivery, error)
            return await self._refused(delivery, error)
        except (TransportError, MalformedMessageError) as error:
            return self._failed(delivery, error)
        if not reply.final:
            return self._failed(delivery, MalformedMessageError(f"an unknown answer to a result: {reply.status!r}"))
        if reply.status == "ignored":
            _log.info(
                "result of task %s ignored by %s: %s",
                delivery.result.task_id,
                delivery.link.url,
                reply.reason or reply.message,
                extra={"action": "result_ignored"},
            )
        return None

    async def _refused(self, delivery: Delivery, error: RejectedError) -> float | None:
        """Take a refusal for good. The task must not hang over there: a failure that says why goes in its place."""
        _log.error(
            "result of task %s refused by %s: %s",
            delivery.result.task_id,
            delivery.link.url,
            error,
            extra={"action": "result_refused"},
        )
        replacement = replace_refused(delivery.result, error)
        if replacement is None:
            return None
        delivery.result = replacement
        return await self._attempt(delivery)

    def _failed(self, delivery: Delivery, error: WorkerError) -> float:
        delay = delay_after(delivery.backoff, error)
        if isinstance(error, RejectedError) and error.rate_limited:
            delivery.link.hold_results(delay)
        _log.log(
            logging.WARNING if delivery.backoff.attempts == 1 else logging.DEBUG,
            "result of task %s not delivered to %s (attempt %d), next in %.1f s: %s",
            delivery.result.task_id,
            delivery.link.url,
            delivery.backoff.attempts,
            delay,
            error,
            extra={"action": "result_retry"},
        )
        return delay
