"""Polls the orchestrators for tasks, reserving a slot before each poll. Runs on the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.errors import (
    InvalidInputError,
    MalformedMessageError,
    RejectedError,
    SecurityError,
    TransportError,
    UntrustedTaskError,
    WorkerError,
)
from avtomatika_worker.execution.outcome import Failed
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import kind_of
from avtomatika_worker.policy.rotation import Candidate, Rotation
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.tasks.poll_source import OVERDUE, Poll, PollSource, Since
from avtomatika_worker.tasks.reused import ReusedTasks
from avtomatika_worker.tasks.runner import TaskRunner
from avtomatika_worker.tasks.state import StatePublisher
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.poller")

_UNKNOWN_HERE: Final = frozenset({401, 403, 404})
"""Refusals of a poll that registering may resolve: the token expired, or the orchestrator does not know the worker."""

LOOK_AGAIN: Final = 0.25
"""Seconds between two checks of what changes unnoticed: contact, the outbox's depth, a poll that may lend its slot."""

TASK_FIRST: Final = 0.001
"""Seconds for which the next poll waits for a task that has just arrived: writing one takes as long as a short task."""


class Poller:
    """Keeps as many polls in flight as there are free slots and tasks to expect."""

    def __init__(
        self,
        links: Sequence[Link],
        rotation: Rotation,
        tasks: TaskRunner,
        publisher: StatePublisher,
        outbox: Outbox,
        world: World = REAL,
    ) -> None:
        self._monotonic = world.monotonic
        self._sources = [PollSource(link, tasks.slots.total) for link in links]
        self._rotation = rotation
        self._tasks = tasks
        self._publisher = publisher
        self._outbox = outbox
        self._stopped = False
        self._wake = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._in_flight: tuple[tuple[Link, int], ...] = ()

    async def run(self) -> None:
        """Poll until cancelled. That drops polls in flight, so it must be the last step of a shutdown."""
        self._tasks.on_slot_freed(self._wake.set)
        self._publisher.on_change(self._published)
        async with asyncio.TaskGroup() as group:
            calls = ReusedTasks(group, "poll")
            for source in self._sources:
                group.create_task(self._wake_on_contact(source))
            while True:
                self._wake.clear()
                now = self._monotonic()
                skills = self._publisher.startable_skills
                self._lend_stale(now)
                reserved = False
                while (chosen := self._next(now, skills)) is not None:
                    poll = Poll(now, self._named(chosen, now, skills), chosen.link.breaks)
                    chosen.polls[poll] = None
                    if _log.isEnabledFor(logging.DEBUG):
                        _log_poll(chosen.link, poll)
                    self._tasks.slots.reserve()
                    reserved = True
                    calls.run(self._poll(chosen, poll))
                if reserved:
                    self._publisher.changed()
                self._look_when_overdue(now)
                pause = self._pause(now, skills)
                if pause is None:
                    await self._wake.wait()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

    def stop(self) -> None:
        """Send no further polls. Those in flight continue, and the tasks that they bring are run."""
        self._stopped = True

    def is_due(self) -> bool:
        """Return whether a poll should go out now, regardless of a capacity checker. Called on the main loop."""
        skills = self._publisher.published.available_skills
        if self._stopped or self._tasks.slots.free < 1 or not skills:
            return False
        return self._rotation.next(self._candidates(self._monotonic(), skills)) is not None

    @property
    def in_flight(self) -> tuple[tuple[Link, int], ...]:
        """The polls in flight at each orchestrator when the state was last published. May be read from any thread."""
        return self._in_flight

    def _published(self) -> None:
        self._in_flight = tuple((source.link, len(source.polls)) for source in self._sources)
        self._wake.set()

    # ------------------------------------------------------------------------------------------------ choosing

    def _next(self, now: float, skills: tuple[str, ...]) -> PollSource | None:
        """Return the orchestrator to poll now for these skills, if a slot is free."""
        if self._stopped or not skills:
            return None
        if len(self._sources) == 1:  # nothing to choose
            only = self._sources[0]
            if self._tasks.slots.free > 0:
                return only if self._wants(only, now, skills) else None
            unasked = only.polls and only.unasked(skills, now) and self._wants(only, now, skills)
            return only if unasked and self._borrow(now, self._sources) else None
        return self._next_of_many(now, skills)

    def _next_of_many(self, now: float, skills: tuple[str, ...]) -> PollSource | None:
        """Return whose turn it is. If no slot is free, a waiting poll may lend its own."""
        candidates = self._candidates(now, skills)
        if self._tasks.slots.free > 0:
            chosen = self._rotation.next(candidates)
            return None if chosen is None else self._sources[chosen]
        unasked = [
            Candidate(each.wants and bool(source.unasked(skills, now)), each.reachable)
            for source, each in zip(self._sources, candidates, strict=True)
        ]
        chosen = self._rotation.next(unasked)
        if chosen is not None and self._borrow(now, self._sources):
            return self._sources[chosen]
        chosen = self._rotation.next(candidates)
        if chosen is not None and self._borrow(now, [each for each in self._sources if len(each.polls) > 1]):
            return self._sources[chosen]
        return None

    def _lend_stale(self, now: float) -> None:
        """Free the slots of polls that are no longer counted on."""
        for source in self._sources:
            for poll in source.stale(now) if source.polls else ():
                if not poll.lent:
                    poll.lent = True
                    self._tasks.release_slot()

    def _borrow(self, now: float, lenders: Sequence[PollSource]) -> bool:
        """Free the slots of polls that have been waiting for a long time; return whether one may be taken now.

        While slots are overbooked, a single freed slot may not be reused, so the excess ones are freed as well.
        """
        needed = self._tasks.slots.overbooked + 1
        waiting = [poll for source in lenders for poll in source.polls if not poll.lent and poll.is_waiting(now)]
        if len(waiting) < needed:
            return False
        for poll in sorted(waiting, key=lambda poll: poll.sent)[:needed]:
            poll.lent = True
            self._tasks.slots.release()  # not for tasks in line: they would already have it
        return True

    def _take_over(self, poll: Poll) -> bool:
        """Take over another poll's slot for a task whose poll has none; return whether there was one.

        The task is here, while an orchestrator may hold the other poll for half a minute.
        """
        if self._tasks.slots.free > 0:
            return False  # the task can have a free slot
        waiting = [each for source in self._sources for each in source.polls if each is not poll and not each.lent]
        oldest = min(waiting, key=lambda each: each.sent, default=None)
        if oldest is None:
            return False
        oldest.lent = True
        return True

    def _candidates(self, now: float, skills: tuple[str, ...]) -> list[Candidate]:
        return [
            Candidate(
                wants=self._wants(source, now, skills),
                reachable=source.link.reachable,
                in_flight=len(source.live(now)),
            )
            for source in self._sources
        ]

    def _wants(self, source: PollSource, now: float, skills: tuple[str, ...]) -> bool:
        """Return whether to send another poll there."""
        return (
            source.link.ready.is_open
            and source.not_before <= now
            and not self._outbox.is_full(source.link)
            and source.wants(self._askable(source, now, skills), now)
        )

    def _named(self, source: PollSource, now: float, skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return the skills that a poll there asks for: all, where polls cannot name any."""
        return self._askable(source, now, skills) if source.link.dialect.skill_names else self._tasks.skills

    def _askable(self, source: PollSource, now: float, skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` that have room for more than the polls in flight there may bring.

        A skill that none of them asks for may have the room of one that is waiting, as it may have its slot. Polls at
        other orchestrators do not count: each may be the one that has tasks.
        """
        if not self._publisher.has_limits:
            return skills
        live = source.live(now)
        beyond = self._publisher.startable_beyond([poll.skills for poll in live], skills)
        if not (unasked := source.unasked(skills, now)):
            return beyond
        expected = [poll.skills for poll in live if not poll.is_waiting(now)]
        lent = self._publisher.startable_beyond(expected, unasked)
        return tuple(skill for skill in skills if skill in beyond or skill in lent)

    def _pause(self, now: float, skills: tuple[str, ...]) -> float | None:
        """Return the seconds after which to check again even if nothing happens."""
        pause = LOOK_AGAIN if len(self._sources) > 1 else None
        for source in self._sources:
            if self._outbox.is_full(source.link) or (source.polls and source.unasked(skills, now)):
                pause = LOOK_AGAIN
            if source.not_before > now and (pause is None or source.not_before - now < pause):
                pause = source.not_before - now
        return pause

    def _wake_soon(self) -> None:
        """Check for another poll in a moment. A slot that is freed meanwhile is used immediately."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(TASK_FIRST, self._wake_now)

    def _wake_now(self) -> None:
        self._soon = None
        self._wake.set()

    def _look_when_overdue(self, now: float) -> None:
        """Make sure that an overdue poll is noticed. One timer at a time: it seldom fires."""
        if self._overdue is not None:
            return
        waiting = [(source, live[0]) for source in self._sources if (live := source.live(now))]
        if waiting:
            due = min(poll.sent + source.link.settings.poll_timeout + OVERDUE for source, poll in waiting)
            self._overdue = asyncio.get_running_loop().call_later(due - now + LOOK_AGAIN, self._wake_overdue)

    def _wake_overdue(self) -> None:
        self._overdue = None
        self._wake.set()

    async def _wake_on_contact(self, source: PollSource) -> None:
        seen = -1
        while True:
            seen = await source.link.contacts.changed(seen, None)
            source.contact_is_back(self._monotonic())
            self._wake.set()

    # ------------------------------------------------------------------------------------------------ polling

    async def _poll(self, source: PollSource, poll: Poll) -> None:
        """Send one poll and start the task that it brings."""
        link, taken = source.link, False
        try:
            task = await link.poll(poll.skills, self._publisher.hot_skills)
            source.backoff.succeeded()
            if task is None:
                source.came_empty(poll, self._monotonic())
                self._tasks.adoption.came_empty(link, poll.sent)
            else:
                taken = True
                if self._tasks.start(link, task, reserved=not poll.lent or self._take_over(poll)):
                    source.got_task(self._monotonic())
                    if len(self._sources) > 1:
                        self._rotation.got_task(self._sources.index(source))
                else:
                    source.came_empty(poll, self._monotonic())
        except (MalformedMessageError, UntrustedTaskError) as error:
            taken = self._refuse(source, poll, error)
        except TransportError as error:
            self._failed(source, poll, error)
        finally:
            source.polls.pop(poll, None)
            if not taken:
                if not poll.lent:
                    self._tasks.release_slot()
                self._wake.set()
            elif self._tasks.slots.free > 0 or len(self._sources) > 1:  # otherwise no poll can go out until a slot is
                self._wake_soon()

    def _refuse(self, source: PollSource, poll: Poll, error: MalformedMessageError | UntrustedTaskError) -> bool:
        """Answer a task that cannot or must not run, if its ids are known; return whether that took the slot."""
        link = source.link
        if isinstance(error, UntrustedTaskError):
            text, args = "task %s from %s refused: %s", (error.task_id, link.url, error)
            link.faults.log(_log, logging.ERROR, text, *args, action="task_refused", kind=error.reason)
            outcome = Failed(SecurityError.code, f"the task was refused: {error}", {"reason": error.reason})
        else:
            text = "%s sent a malformed task: %s"
            link.faults.log(_log, logging.ERROR, text, link.url, error, action="task_malformed")
            outcome = Failed(InvalidInputError.code, f"the task is malformed: {error}")
        if error.job_id is None or error.task_id is None:
            self._failed(source, poll, error)
            return False
        if self._tasks.is_busy_with(link, error.task_id):
            self._failed(source, poll, error)
            return False  # the answer would be taken for that of the valid task with the same id
        task = Task(job_id=error.job_id, task_id=error.task_id, type="")
        self._tasks.answer(link, task, outcome, reserved=not poll.lent)
        return True

    def _failed(self, source: PollSource, poll: Poll, error: WorkerError) -> None:
        """Slow down after a failed poll. While contact is broken, polls wait for the registration anyway."""
        delay = source.failed(poll, error, self._monotonic())
        if delay is None:
            _log.debug("poll of %s failed along with others: %s", source.link.url, error)
            return
        limited = isinstance(error, RejectedError) and error.rate_limited
        if isinstance(error, RejectedError) and not limited and _may_be_healed(error):
            source.link.contact_broken()
        if limited:
            self._limited(source, delay)
        source.link.faults.log(
            _log,
            logging.DEBUG if limited else logging.WARNING,
            "poll of %s failed, next in %.1f s: %s",
            source.link.url,
            delay,
            error,
            action="poll_failed",
            kind=kind_of(error),
        )

    def _limited(self, source: PollSource, delay: float) -> None:
        """Warn if an orchestrator's limit on polls holds back a busy worker; idle ones are refused, too."""
        since, source.since = source.since, Since(0.0)
        if since.is_busy:
            took = self._monotonic() - since.began
            text = (
                "%s refuses polls, next in %.0f s: its rate limit holds back this worker, which started %d tasks in"
                " %.1f s. Raise RATE_LIMIT_POLL_LIMIT there, or run more workers"
            )
            args = (source.link.url, delay, since.tasks, took)
            source.link.faults.log(_log, logging.WARNING, text, *args, action="polls_limited", kind="limited")


def _log_poll(link: Link, poll: Poll) -> None:
    _log.debug(
        "polling %s for %s",
        link.url,
        ", ".join(poll.skills),
        extra={"action": "polling", "orchestrator": link.url, "worker_id": link.worker_id},
    )


def _may_be_healed(error: RejectedError) -> bool:
    """Return whether registering may help: the worker is unknown, or something other than an orchestrator answered."""
    return error.status in _UNKNOWN_HERE or not error.from_orchestrator
