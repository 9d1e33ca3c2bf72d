"""Starts the services, watches them, and takes them down in a written sequence.

Two threads, a loop each: the main loop runs polls, skills and first deliveries; the link thread runs what must stay
alive while a skill blocks (heartbeats, commands, retries, health).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.execution.processes.pool import Processes
from avtomatika_worker.execution.processes.process import KILL_TIMEOUT
from avtomatika_worker.execution.resources import CLOSE_TIMEOUT, OneThread, Resources
from avtomatika_worker.execution.runners import Threads
from avtomatika_worker.files.service import Files
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.policy.lifecycle import Phase, Signal, step
from avtomatika_worker.protocol.messages import WorkerStatus
from avtomatika_worker.services.health import HealthServer
from avtomatika_worker.services.heartbeat_process import HeartbeatProcess
from avtomatika_worker.services.heartbeats import Heartbeats
from avtomatika_worker.services.link import Link
from avtomatika_worker.services.outbox import Outbox
from avtomatika_worker.services.poller import Poller
from avtomatika_worker.services.presence import Presence
from avtomatika_worker.services.tasks import Tasks
from avtomatika_worker.services.watchdog import Pulse

_log: Final = logging.getLogger("avtomatika_worker.supervisor")
_T = TypeVar("_T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

TELL_TIMEOUT: Final = 3.0
"""Seconds for telling every orchestrator "draining", and again for "offline"."""

REPORT_TIMEOUT: Final = 3.0
"""Seconds for the results of tasks that have ended to be delivered, or stored."""

FLUSH_TIMEOUT: Final = 5.0
"""Seconds for results that wait for another attempt."""

_FORCED_TIMEOUT: Final = 1.0
"""Seconds for each step that is done even when a second request cuts the shutdown short."""

_STOP_TIMEOUT: Final = 3.0
"""Seconds for services, the link thread and telemetry to stop; then they are left behind."""

_LAST_TURNS: Final = 10
"""Turns of the link thread's loop in which the connections that its services let go of are closed: TLS takes some."""


class LinkThread:
    """A thread with an event loop of its own, and the services that live there."""

    def __init__(self, services: Sequence[Callable[[], Coroutine[Any, Any, None]]], loop_factory: LoopFactory) -> None:
        self._services = services
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._up = threading.Event()
        self.ended: Future[None] = Future()
        self._over = False
        self._calls: set[asyncio.Task[None]] = set()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="link", daemon=True)

    def start(self) -> None:
        """Start the thread; on return its loop runs."""
        self._thread.start()
        self._up.wait()

    async def call(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run ``work()`` over there and return what it returns. Raises RuntimeError when the thread ends first."""
        done: Future[_T] = Future()

        async def answer() -> None:
            try:
                done.set_result(await work())
            except BaseException as error:  # noqa: BLE001 - raised in the caller's loop
                done.set_exception(error)

        def begin() -> None:  # over there: a coroutine that the loop has no time left for would never be awaited
            if not self._over and done.set_running_or_notify_cancel():
                self._calls.add(task := asyncio.ensure_future(answer()))
                task.add_done_callback(self._calls.discard)

        if self._loop is None or self.ended.done():
            raise RuntimeError("the link thread does not run")
        self._loop.call_soon_threadsafe(begin)
        answered, ended = asyncio.wrap_future(done), asyncio.ensure_future(self.until_ended())
        either: set[asyncio.Future[Any]] = {answered, ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            answered.cancel()  # nobody asks what becomes of it
            raise
        finally:
            ended.cancel()
        if not answered.done():
            raise RuntimeError("the link thread ended meanwhile")
        return answered.result()

    async def until_ended(self) -> None:
        """Wait for the thread's end. Raises what ended it."""
        ended = asyncio.wrap_future(self.ended)
        ended.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody may wait any more
        await asyncio.shield(ended)  # cancelling a wrapped future would cancel the thread's own

    async def stop(self) -> None:
        """Cancel the services and wait for the thread, if it was started."""
        if not self._thread.is_alive() and self._loop is None:
            return
        if self._loop is not None and self._main is not None and not self.ended.done():
            with contextlib.suppress(RuntimeError):  # its loop was closed in this very moment
                self._loop.call_soon_threadsafe(self._main.cancel)
        await asyncio.wait({asyncio.wrap_future(self.ended)}, timeout=_STOP_TIMEOUT)
        if not self.ended.done():
            _log.error("the link thread does not end: it is left behind", extra={"action": "shutdown_step_cut"})
            return
        with contextlib.suppress(BaseException):
            self.ended.result()  # what ended it has been raised already
        self._thread.join(_STOP_TIMEOUT)  # it has nothing left to do

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError:
            self.ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed to the main loop, which raises it
            self.ended.set_exception(_the_one(error))
        else:
            self.ended.set_result(None)
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._up.set()
        try:
            async with asyncio.TaskGroup() as group:
                for service in self._services:
                    group.create_task(service())
        finally:
            self._over = True  # what is begun now would not run any more
            for _ in range(_LAST_TURNS):
                await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a supervisor runs."""

    links: tuple[Link, ...]
    heartbeats: tuple[Heartbeats, ...]
    poller: Poller
    tasks: Tasks
    presence: Presence
    pulse: Pulse
    outbox: Outbox
    threads: Threads
    processes: Processes
    resources: Resources
    resource_thread: OneThread
    files: Files
    telemetry: Telemetry
    health: HealthServer | None
    standby: HeartbeatProcess | None
    link_services: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended: ``forced``, when its shutdown was cut short; ``lost`` counts results gone for good."""

    forced: bool = False
    lost: int = 0


class Supervisor:
    """Runs a worker's services until it is told to stop."""

    def __init__(
        self, parts: Parts, *, shutdown_timeout: float, store_required: bool, loop_factory: LoopFactory
    ) -> None:
        self._parts = parts
        self._shutdown_timeout = shutdown_timeout
        self._store_required = store_required
        self._link_thread = LinkThread([*(h.run for h in parts.heartbeats), *parts.link_services], loop_factory)
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._services: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()
        self.phase: Phase = Phase.NEW

    def shutdown(self) -> None:
        """Begin to shut down. Called on the main loop; more calls change nothing."""
        self._stop.set()

    def request_shutdown(self) -> None:
        """Begin to shut down; asked a second time, skip to its end."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    def is_cancelled(self, task_id: str) -> bool:
        """Whether the running task ``task_id`` should stop."""
        return self._parts.tasks.is_cancelled(task_id)

    async def prestart(self) -> None:
        """Start the first process for skills, if there is none. Raises what keeps it from starting."""
        await self._parts.processes.prestart()

    async def stopped(self) -> None:
        """Wait until everything has stopped."""
        await self._stopped.wait()

    async def run(self) -> None:
        """Run until told to stop, or cancelled: both shut down in order. Raises what crashed a service.

        Cancelled again meanwhile, the shutdown is cut short. A crash shuts down in order too, as far as that goes.
        """
        ended_by: BaseException | None = None
        try:
            if self._parts.health is not None:  # a port that is taken is known before anything is made
                self._parts.health.open()
            self._parts.outbox.open(self._parts.links, required=self._store_required)
            for link in self._parts.links:
                link.open()
            if await self._make_resources():
                await self._start()
                await self._watch()
        except BaseException as error:  # noqa: BLE001 - raised again when everything has been taken down
            ended_by = _the_one(error)
        ending = asyncio.ensure_future(self._end())
        while not ending.done():
            try:
                await asyncio.wait({ending})
            except asyncio.CancelledError as error:
                ended_by = ended_by or error
                self._force.set()
        if ended_by is not None:
            raise ended_by
        ending.result()

    @property
    def ending(self) -> Ending:
        """How it ended."""
        return Ending(forced=self._force.is_set(), lost=self._parts.outbox.lost)

    def rescue(self) -> None:
        """Put on disk what is not there yet. Called in any thread, when the loops have come to a stop."""
        self._parts.outbox.rescue()

    # -------------------------------------------------------------------------------------------------- up

    async def _start(self) -> None:
        self.phase = step(self.phase, Signal.START)
        started = asyncio.Event()
        self._spawn(self._parts.tasks.run(started))
        await started.wait()
        self._link_thread.start()
        self._spawn(self._link_thread.until_ended())
        self._spawn(self._parts.poller.run())
        self._spawn(self._parts.pulse.run())

    async def _make_resources(self) -> bool:
        """Make what skills need, before anybody hears of the worker; False when it is told to stop meanwhile."""
        making = asyncio.ensure_future(self._open_resources())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({making, stop}, return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                making.result()
        finally:
            stop.cancel()
            if not making.done():
                making.cancel()
                await asyncio.wait({making}, timeout=CLOSE_TIMEOUT)
        return not self._stop.is_set()

    async def _open_resources(self) -> None:
        await self._parts.resources.open()
        await self._parts.processes.open()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._services.append(asyncio.get_running_loop().create_task(coroutine))

    async def _watch(self) -> None:
        """Wait until told to stop. A service that ends before is a crash: its exception is raised."""
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait({stop, *self._services}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        for service in done - {stop}:
            service.result()
            raise RuntimeError("a service of the worker ended by itself")

    # -------------------------------------------------------------------------------------------------- down

    async def _end(self) -> None:
        try:
            if self.phase is Phase.RUNNING:
                await self._shut_down()
        finally:
            await self._tear_down()

    async def _shut_down(self) -> None:
        """Shut down in order; each step is bounded, and a second request skips to the end."""
        parts, tasks = self._parts, self._parts.tasks
        self.phase = step(self.phase, Signal.SHUTDOWN)
        _log.info("shutting down, %d tasks running", len(tasks.running), extra={"action": "shutdown_started"})
        parts.poller.stop()
        parts.presence.drain()
        for link in parts.links:
            link.drain()
        await self._step("tell draining", self._tell(WorkerStatus.DRAINING), TELL_TIMEOUT)
        done = await self._step("finish tasks", tasks.all_reported(), self._shutdown_timeout)
        tasks.refuse_new(CancelReason.SHUTDOWN)  # a poll in flight may still bring one
        if not done:
            tasks.cancel_all(CancelReason.SHUTDOWN)
            await self._step("cancel tasks", tasks.all_reported(), tasks.longest_grace + REPORT_TIMEOUT)
        self.phase = step(self.phase, Signal.DRAINED)
        await self._step("flush results", parts.outbox.drained(FLUSH_TIMEOUT), FLUSH_TIMEOUT + 1)
        if self._force.is_set():
            parts.outbox.stop_sending()
        await self._step("tell offline", self._tell(WorkerStatus.OFFLINE), TELL_TIMEOUT, forced=True)
        await self._step("answer the last tasks", tasks.all_reported(), REPORT_TIMEOUT, forced=True)

    async def _step(self, name: str, work: Awaitable[object], timeout: float, *, forced: bool = False) -> bool:
        """Do one step for at most ``timeout`` seconds; return whether it came to its end.

        A second request to shut down skips it, unless it is one of those that are ``forced``.
        """
        if forced and self._force.is_set():
            timeout = _FORCED_TIMEOUT
        task = asyncio.ensure_future(work)
        force = asyncio.ensure_future(self._force.wait())
        waited: set[asyncio.Future[Any]] = {task} if forced else {task, force}
        try:
            await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            force.cancel()
        if task.done() and task.exception() is None:
            return True
        problem = task.exception() if task.done() else None
        task.cancel()
        _log.warning(
            "shutdown: could not %s%s",
            name,
            " in time" if problem is None else f": {problem!r}",
            extra={"action": "shutdown_step_cut"},
        )
        return False

    async def _tell(self, status: WorkerStatus) -> None:
        """Tell every orchestrator, side by side."""

        async def tell_all() -> None:
            if status is WorkerStatus.OFFLINE and self._parts.standby is not None:
                self._parts.standby.cease()
            await asyncio.gather(*(h.tell(status) for h in self._parts.heartbeats))

        if not self._link_thread.ended.done():  # a start that failed has told its reason; there is nobody to tell
            await self._link_thread.call(tell_all)

    async def _tear_down(self) -> None:
        """Stop everything that still runs."""
        for service in self._services:
            service.cancel()
        await _settle(self._services)
        await self._link_thread.stop()
        if self._parts.health is not None:
            await _in_thread(self._parts.health.close)
        for link in self._parts.links:
            await link.close()
        self._parts.outbox.close()
        await self._close_resources()
        self._parts.threads.close()
        self._parts.files.close()
        await self._step("close telemetry", _in_thread(self._parts.telemetry.close), _STOP_TIMEOUT)
        self.phase = Phase.STOPPED
        self._stopped.set()
        _log.info("stopped", extra={"action": "stopped"})

    async def _close_resources(self) -> None:
        """Close what skills needed, here and in processes side by side. Told to hurry, leave it."""
        parts = self._parts

        async def close() -> None:
            await asyncio.gather(parts.processes.close(), parts.resources.close())

        await self._step("close resources", close(), CLOSE_TIMEOUT + KILL_TIMEOUT)
        await parts.processes.kill()
        parts.resource_thread.close()


def _the_one(error: BaseException) -> BaseException:
    """Return the error itself where a group holds just one: what crashed is what people should read."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())  # only groups have it
    return _the_one(inner[0]) if len(inner) == 1 else error


async def _settle(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until all have ended, for a while."""
    if not tasks:
        return
    ended, left = await asyncio.wait(tasks, timeout=_STOP_TIMEOUT)
    for task in ended:
        if not task.cancelled():
            task.exception()  # what ended it has been raised already
    for task in left:
        _log.error("%s does not end: it is left behind", task.get_name(), extra={"action": "shutdown_step_cut"})


async def _in_thread(work: Callable[[], None]) -> None:
    """Do ``work`` in a thread of its own: skills may have taken all of asyncio's."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="closing", daemon=True).start()
    await asyncio.wrap_future(done)
