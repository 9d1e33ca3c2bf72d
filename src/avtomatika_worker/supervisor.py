"""Starts the services, watches them, and shuts them down in a fixed sequence.

Two threads, a loop and a task group each: the main loop runs polls, skills and first deliveries; the link thread runs
what must stay alive while a skill blocks (heartbeats, commands, retries, the watchdog).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from avtomatika_worker._boundaries import Caught, caught
from avtomatika_worker._waiting import at_once, first_of, settle, side_by_side, wait_through
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.execution.processes.process_pool import Processes
from avtomatika_worker.execution.resources import CLOSE_TIMEOUT
from avtomatika_worker.link.heartbeats import Heartbeats
from avtomatika_worker.link.link import Link
from avtomatika_worker.link_thread import LinkThread, LinkThreadEndedError, LoopFactory, Service
from avtomatika_worker.monitoring.notices import Notices
from avtomatika_worker.protocol.messages import WorkerStatus
from avtomatika_worker.steps import FORCED_TIMEOUT, Failures, Steps, Work, cut
from avtomatika_worker.tasks.poller import Poller
from avtomatika_worker.tasks.runner import TaskRunner
from avtomatika_worker.tasks.state import StatePublisher
from avtomatika_worker.threadsafe import CallQueue

if TYPE_CHECKING:
    from avtomatika_worker.monitoring.heartbeat_process import HeartbeatProcess

_log: Final = logging.getLogger("avtomatika_worker.supervisor")

ANNOUNCE_TIMEOUT: Final = 3.0
"""Seconds for announcing "draining" to every orchestrator, and again for "offline"."""

REPORT_TIMEOUT: Final = 3.0
"""Seconds to deliver or store the results of tasks that have ended."""

FLUSH_TIMEOUT: Final = 5.0
"""Seconds to deliver results that wait for another attempt."""

DRAINING_FIRST: Final = 1.0
"""Maximum seconds before tasks learn of a notice: orchestrators hear of it first."""

END_RESERVE: Final = 8.0
"""Seconds of a notice reserved for what follows the tasks and their grace: delivering results, going offline."""

STOP_TIMEOUT: Final = 3.0
"""Seconds for a part to close, unless it has a limit of its own; after that, it is left behind."""


async def nothing() -> None:
    """Do nothing, for parts that need no closing."""


class Part(msgspec.Struct, frozen=True):
    """Something to open before the worker registers anywhere, and to close after its services have ended.

    ``open`` raises whatever keeps the worker from starting; it can be interrupted only while it awaits. ``close`` has
    ``limit`` seconds, and is called even if ``open`` was not called or did not finish. With ``skipped_in_haste``, the
    part is not closed if the shutdown is cut short.
    """

    name: str
    open: Callable[[], Coroutine[Any, Any, object] | None] = lambda: None
    close: Work = nothing
    limit: float = STOP_TIMEOUT
    skipped_in_haste: bool = False


class MainService(msgspec.Struct, frozen=True):
    """A service that runs on the main loop, beside the tasks, from start to end."""

    name: str
    run: Work


class Engine(msgspec.Struct, frozen=True):
    """The parts that bring tasks in and results out. A shutdown stops them in a fixed order."""

    links: Sequence[Link]
    heartbeats: Sequence[Heartbeats]
    poller: Poller
    tasks: TaskRunner
    publisher: StatePublisher
    outbox: Outbox
    processes: Processes
    standby: HeartbeatProcess | None
    notices: Notices | None = None


class Ending(msgspec.Struct, frozen=True):
    """How a worker ended. ``forced``: its shutdown was cut short. ``lost``: the number of results gone for good.

    ``preempted``: it ended because of a notice that its machine would be taken away.
    """

    forced: bool = False
    lost: int = 0
    preempted: bool = False


class Supervisor:
    """Runs a worker until it is asked to stop.

    ``parts`` are opened in order and closed in reverse order. Created on the main loop.
    """

    def __init__(
        self,
        engine: Engine,
        parts: Sequence[Part],
        services: Sequence[MainService],
        link_services: Sequence[Service],
        *,
        shutdown_timeout: float,
        loop_factory: LoopFactory,
        make_link_thread: Callable[[Sequence[Service], LoopFactory], LinkThread] = LinkThread,
    ) -> None:
        self.engine: Engine = engine
        self._parts = parts
        self._services = services
        self._link_thread = make_link_thread(link_services, loop_factory)
        self._shutdown_timeout = shutdown_timeout
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._force: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._stopped = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._failures = Failures()
        self._steps = Steps(self._group, self._force, self._failures)
        self._interrupted: RuntimeError | None = None
        self._asked = False
        self._preempted = False
        self._noticed = False
        self._tasks_until: float | None = None
        self._less_time = asyncio.Event()
        self._taking_down = False
        if engine.notices is not None:
            engine.notices.on_notice = self._take_notice

    def shutdown(self) -> None:
        """Begin to shut down. Called on the main loop; further calls change nothing."""
        self._asked = True
        self._finish_tasks_within(self._shutdown_timeout)
        settle(self._stop)

    def request_shutdown(self) -> None:
        """Begin to shut down; on the second call, cut the shutdown short."""
        if self._asked:
            settle(self._force)
        self.shutdown()

    def announce_draining(self) -> None:
        """Announce "draining", ahead of a shutdown. May be called from any thread, while the main loop is blocked."""
        self.engine.publisher.announce_draining()

    def _take_notice(self, seconds: float | None) -> None:
        """Act on a notice. Called on the link thread."""
        CallQueue(self._loop).put(self.preempt, seconds)
        self.announce_draining()

    def preempt(self, seconds: float | None) -> None:
        """Drain for a notice that the machine is taken away in ``seconds``; the ending is then ``preempted``."""
        self._noticed = True
        self.drain_for_preemption(seconds)

    def drain_for_preemption(self, seconds: float | None) -> None:
        """Let the tasks know that this machine will be taken away in ``seconds``, and shut down by then.

        With None, the tasks have as much time as in any shutdown. Called on the main loop. Of several notices, the
        earliest end counts.
        """
        self._preempted = True
        self._loop.call_later(DRAINING_FIRST, self._preempt_tasks)
        if seconds is not None:
            until = self._loop.time() + max(0.0, seconds)
            self._steps.until = until if self._steps.until is None else min(self._steps.until, until)
            reserve = min(seconds / 2, self.engine.tasks.running.longest_grace + END_RESERVE)
            self._finish_tasks_within(max(0.0, seconds - reserve))
        else:
            self._finish_tasks_within(self._shutdown_timeout)
        settle(self._stop)

    def is_cancelled(self, task_id: str) -> bool:
        """Whether the running task ``task_id`` should stop."""
        return self.engine.tasks.running.is_cancelled(task_id)

    async def prestart(self) -> None:
        """Start the first skill process, if there is none. Raises what keeps it from starting."""
        await self.engine.processes.prestart()

    async def stopped(self) -> None:
        """Wait until everything has stopped."""
        await self._stopped.wait()

    async def run(self) -> None:
        """Run until asked to stop, or cancelled; then shut down in order. Raises the first failure of a part.

        A further cancellation cuts the shutdown short. A failure also leads to an orderly shutdown, as far as possible.
        Whatever does not end within its limit is left behind, and named in the log.
        """
        # The root of this loop's tasks. It is not in a group, which could not leave it behind.
        root = self._loop.create_task(self._live(), name="supervisor")
        cancelled: list[asyncio.CancelledError] = []

        def asked(error: asyncio.CancelledError) -> None:
            cancelled.append(error)
            self.request_shutdown()

        await wait_through({root, self._over}, None, asked)
        await wait_through({root}, FORCED_TIMEOUT, asked)  # what was cut short may still have to end
        if not root.done():
            _log.error("a part of the worker does not end, and is left behind", extra={"action": "shutdown_step_cut"})
        elif not root.cancelled() and (error := root.exception()) is not None:
            self._failures.add("the supervisor", error)
        for reason in (self._failures.first, *cancelled, self._interrupted):
            if reason is not None:
                raise reason

    @property
    def ending(self) -> Ending:
        """How it ended."""
        return Ending(forced=self._force.done(), lost=self.engine.outbox.lost, preempted=self._noticed)

    def rescue(self) -> None:
        """Write to disk what is not there yet. May be called from any thread, after the loops have stopped."""
        self.engine.outbox.rescue()

    # -------------------------------------------------------------------------------------------------- up

    async def _live(self) -> None:
        """Run everything on the main loop in one group. Its children never fail it: their failures are collected."""
        async with self._group:
            try:
                async with AsyncExitStack() as stack:
                    with caught() as failed:  # raised by `run` once everything is taken down
                        if await self._open(stack):
                            await self._serve(stack)
                    if failed.error is not None:
                        self._failures.add("the start", failed.error, logged=False)
                    self._taking_down = True
            finally:
                self._stopped.set()
                settle(self._over)
                _log.info("stopped", extra={"action": "stopped"})

    async def _open(self, stack: AsyncExitStack) -> bool:
        """Open all parts; return False if asked to stop meanwhile. Raises whatever keeps a part from opening."""
        for part in self._parts:
            haste = 0.0 if part.skipped_in_haste else part.limit
            close = partial(self._steps.run, f"close {part.name}", part.close, part.limit, in_haste=haste)
            stack.push_async_callback(close)
            opening = part.open()
            if opening is not None and not await self._opened(part.name, opening):
                return False
        return True

    async def _opened(self, name: str, opening: Coroutine[Any, Any, object]) -> bool:
        if self._stop.done():
            opening.close()
            return False
        failed = Caught()

        async def until_open() -> None:
            nonlocal failed
            with caught() as failed:
                await opening

        task = self._group.create_task(until_open(), name=f"open {name}")
        await self._wait({task, self._stop})
        if not task.done():
            task.cancel()
            await self._wait({task}, CLOSE_TIMEOUT)
        elif failed.error is not None:
            raise failed.error
        return not self._stop.done()

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Start the tasks and services, and shut down when asked to, or when something has failed."""
        ready = self._loop.create_future()
        self._start(stack, partial(self.engine.tasks.run, ready), "tasks")
        await self._wait({ready, self._stop})
        self._link_thread.start()
        stop = partial(self._steps.run, "stop the link thread", self._link_thread.stop, STOP_TIMEOUT)
        stack.push_async_callback(stop, in_haste=STOP_TIMEOUT)
        self._group.create_task(self._watched(self._link_thread.until_ended, "the link thread"), name="link thread")
        for service in self._services:
            self._start(stack, service.run, service.name)
        await self._wait({self._stop})
        await self._shut_down()

    async def _wait(self, waited: set[asyncio.Future[Any]], timeout: float | None = None) -> None:
        """Wait for the first of them. If cancelled meanwhile, as all tasks are when a loop ends, begin to shut down."""
        await wait_through(waited, timeout, lambda _: self.request_shutdown())

    def _start(self, stack: AsyncExitStack, run: Work, name: str) -> None:
        task = self._group.create_task(self._watched(run, name), name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.wait({task})

        stack.push_async_callback(self._steps.run, f"stop {name}", end, STOP_TIMEOUT, in_haste=STOP_TIMEOUT)

    async def _watched(self, run: Work, name: str) -> None:
        """Run a service. It fails by ending before it is taken down, and by raising at any time."""
        with caught() as kept:  # raised by `run` once everything is taken down
            await run()
        error = kept.error
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._failures.add(name, error)
        elif not self._taking_down and error is None:
            self._failures.add(name, RuntimeError(f"{name} ended by itself"))
        elif not self._taking_down:  # perhaps with all tasks of the loop, and so with `run`
            self._interrupted = RuntimeError(f"{name} was cancelled, but not by the worker")
            _log.error("%s", self._interrupted, extra={"action": "part_cancelled"})
        self.shutdown()

    # -------------------------------------------------------------------------------------------------- down

    async def _shut_down(self) -> None:
        """Shut down in order; each step is bounded, and a second request skips to the end."""
        engine, tasks, step = self.engine, self.engine.tasks, self._steps.run
        _log.info("shutting down, running tasks: %d", len(tasks.running), extra={"action": "shutdown_started"})
        for drain in (engine.poller.stop, engine.publisher.drain, *(link.drain for link in engine.links)):
            await step("stop taking tasks", partial(at_once, drain), FORCED_TIMEOUT, in_haste=FORCED_TIMEOUT)
        await step("announce draining", partial(self._announce, WorkerStatus.DRAINING), ANNOUNCE_TIMEOUT)
        self._preempt_tasks()
        longest = max(self._shutdown_timeout, (self._tasks_until or 0.0) - self._loop.time())
        await step("finish tasks", self._tasks_finished, longest + 1.0)
        done = tasks.is_idle
        tasks.refuse_new(CancelReason.SHUTDOWN)  # a poll in flight may still bring one
        if not done:
            cancel = partial(at_once, partial(tasks.running.cancel_all, CancelReason.SHUTDOWN))
            await step("cancel tasks", cancel, FORCED_TIMEOUT, in_haste=FORCED_TIMEOUT)
            await step("end cancelled tasks", tasks.all_reported, tasks.running.longest_grace + REPORT_TIMEOUT)
        await step("flush results", partial(engine.outbox.drained, FLUSH_TIMEOUT), FLUSH_TIMEOUT + 1)
        if self._force.done():
            engine.outbox.stop_sending()
        offline = partial(self._announce, WorkerStatus.OFFLINE)
        await step("announce offline", offline, ANNOUNCE_TIMEOUT, in_haste=FORCED_TIMEOUT)
        await step("answer the last tasks", tasks.all_reported, REPORT_TIMEOUT, in_haste=FORCED_TIMEOUT)

    def _preempt_tasks(self) -> None:
        """Let the tasks know of a notice, after "draining" is announced: what they give up must not come back here."""
        if self._preempted:
            self.engine.tasks.running.preempt_all()

    def _finish_tasks_within(self, seconds: float) -> None:
        """Limit the time that tasks have left; an earlier limit stays in force."""
        until = self._loop.time() + seconds
        if self._tasks_until is None or until < self._tasks_until:
            self._tasks_until = until
            self._less_time.set()

    async def _tasks_finished(self) -> None:
        """Wait until all tasks have ended, or their time is up."""
        await first_of(self.engine.tasks.all_reported, self._tasks_time_up)
        if not self.engine.tasks.is_idle:
            cut("finish tasks", " in time")

    async def _tasks_time_up(self) -> None:
        if self._tasks_until is None:  # a part has failed: nobody asked for a shutdown
            self._finish_tasks_within(self._shutdown_timeout)
        while self._tasks_until is not None and (left := self._tasks_until - self._loop.time()) > 0:
            self._less_time.clear()
            await first_of(self._less_time.wait, timeout=left)

    async def _announce(self, status: WorkerStatus) -> None:
        """Announce a status to all orchestrators at once, unless the link thread has failed, which is already known."""

        async def announce_all() -> None:
            if status is WorkerStatus.OFFLINE and self.engine.standby is not None:
                self.engine.standby.cease()
            await side_by_side(*(partial(each.announce, status) for each in self.engine.heartbeats))

        with contextlib.suppress(LinkThreadEndedError):
            await self._link_thread.call(announce_all)
