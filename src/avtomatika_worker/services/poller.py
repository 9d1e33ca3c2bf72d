"""Asks one orchestrator for tasks: a slot is reserved before each poll goes out. Runs on the main loop."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from avtomatika_worker.errors import (
    InvalidInputError,
    MalformedMessageError,
    RejectedError,
    TransportError,
    WorkerError,
)
from avtomatika_worker.execution.outcome import Failed
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.policy.pollers import PollDemand
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.services.link import Link, delay_after
from avtomatika_worker.services.tasks import Tasks

_log: Final = logging.getLogger("avtomatika_worker.poller")

_UNKNOWN_HERE: Final = frozenset({401, 403, 404})
"""Refusals of a poll that a registration may heal: the token ran out, or the orchestrator does not know the worker."""


class Poller:
    """Keeps as many polls in flight as there are free slots and supply for them."""

    def __init__(self, link: Link, tasks: Tasks) -> None:
        self._link = link
        self._tasks = tasks
        self._demand = PollDemand(tasks.slots.total)
        self._backoff = Backoff(link.settings.calls)
        self._not_before = 0.0
        self._in_flight = 0
        self._stopped = False
        self._wake = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many polls wait for an answer."""
        return self._in_flight

    async def run(self) -> None:
        """Poll until cancelled; polls in flight are then dropped, so that is for the last step of shutting down."""
        self._tasks.on_slot_freed(self._wake.set)
        async with asyncio.TaskGroup() as polls:
            while True:
                await self._until_polls_are_due()
                wanted = self._demand.to_send(self._in_flight, self._tasks.slots.free)
                for _ in range(wanted):
                    self._tasks.slots.reserve()
                    self._in_flight += 1
                    polls.create_task(self._poll(), name=f"poll {self._link.url}")
                await self._wake.wait()
                self._wake.clear()

    def stop(self) -> None:
        """Send no further polls; those in flight go on, and what they bring is run."""
        self._stopped = True

    async def _until_polls_are_due(self) -> None:
        await self._link.ready.wait()
        wait = self._not_before - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
            await self._link.ready.wait()
        if self._stopped:
            await asyncio.Event().wait()

    async def _poll(self) -> None:
        """Send one poll and hand over what it brings."""
        reserved = True
        try:
            task, _ = await self._link.poll(self._tasks.available_skills, self._tasks.hot_skills)
            self._backoff.succeeded()
            if task is None:
                self._demand.came_empty()
            else:
                reserved = False
                self._demand.got_task()
                self._tasks.start(self._link, task)
        except MalformedMessageError as error:
            reserved = not self._answer_malformed(error)
        except TransportError as error:
            self._failed(error)
        finally:
            self._in_flight -= 1
            if reserved:
                self._tasks.slots.release()
            self._wake.set()

    def _answer_malformed(self, error: MalformedMessageError) -> bool:
        """Answer a malformed task with a failure when it can be named; return whether that took the slot."""
        _log.error("%s sent what is %s", self._link.url, error, extra={"action": "task_malformed"})
        if error.job_id is None or error.task_id is None:
            self._failed(error)
            return False
        task = Task(job_id=error.job_id, task_id=error.task_id, type="")
        outcome = Failed(InvalidInputError.code, f"the task is malformed: {error}", expected=True)
        self._tasks.reject(self._link, task, outcome)
        return True

    def _failed(self, error: WorkerError) -> None:
        """Slow down. While contact is broken, polls wait for the registration anyway."""
        self._demand.failed()
        delay = delay_after(self._backoff, error)
        self._not_before = max(self._not_before, time.monotonic() + delay)
        if isinstance(error, RejectedError) and error.status in _UNKNOWN_HERE:
            self._link.contact_broken()
        first = self._backoff.attempts == 1
        limited = isinstance(error, RejectedError) and error.rate_limited
        _log.log(
            logging.WARNING if first and not limited else logging.DEBUG,
            "poll at %s failed, next in %.1f s: %s",
            self._link.url,
            delay,
            error,
            extra={"action": "poll_failed"},
        )
