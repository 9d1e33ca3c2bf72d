"""The embedded orchestrator: starting, stopping, and everything that tests and the CLI do with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from aiohttp import web

from avtomatika_worker._forks import close_in_forked_children
from avtomatika_worker.devserver.changes import Change, Hub, Subscription
from avtomatika_worker.devserver.client_api import ClientApi
from avtomatika_worker.devserver.console import Console, ConsoleApi, Feed, Figures
from avtomatika_worker.devserver.console.shown_program import Program
from avtomatika_worker.devserver.faults import Fault, FaultBook
from avtomatika_worker.devserver.jobs import NewJob
from avtomatika_worker.devserver.listening import listening_socket, stop_accepting
from avtomatika_worker.devserver.observing import OBSERVERS
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.orchestrator_settings import OrchestratorOptions, OrchestratorSettings
from avtomatika_worker.devserver.page_guard import Guard
from avtomatika_worker.devserver.releases import release
from avtomatika_worker.devserver.snapshots import JobRecord, JobState, Problem, RecordedCall, WorkerRecord
from avtomatika_worker.devserver.verification import TokenDesk
from avtomatika_worker.devserver.worker_api import WorkerApi
from avtomatika_worker.protocol.signing import Signer

_T = TypeVar("_T")
_TICK: Final = 0.5
_STOP_TIME: Final = 0.5


class EmbeddedOrchestrator:
    """An orchestrator for development and tests: real HTTP on loopback, in memory, any protocol version.

    ``settings`` say how it behaves; single ones can be given as keywords: ``EmbeddedOrchestrator(poll_time=0.5)``, or
    ``EmbeddedOrchestrator(PRODUCTION_LIKE, task_timeout=0.3)``. By default it is patient: no rate limits, and a task
    stays with a worker that works on it. `PRODUCTION_LIKE` has the limits of released orchestrators.
    ``console`` adds a page for trying and watching skills, at `console_url`.

    It answers only requests whose ``Host`` is a loopback name or address or, if bound to more than loopback, an address
    or a name that public DNS cannot give to others, and none made by a page from another origin. A web page cannot
    reach it through a name of its own. Call its methods only in the event loop that `start` ran in.

    Raises TypeError for an unknown keyword, and ValueError as `OrchestratorSettings` does.
    """

    def __init__(
        self,
        settings: OrchestratorSettings | None = None,
        /,
        *,
        console: Console | None = None,
        **changes: Unpack[OrchestratorOptions],
    ) -> None:
        settings = replace(settings or OrchestratorSettings(), **changes)
        self.settings: OrchestratorSettings = settings
        self.version: str = settings.version
        self.host: str = settings.host
        self.token: str | None = settings.token
        self._port = settings.port
        self._clock_offset = 0.0
        self._hub = Hub()
        self._faults = FaultBook()
        self._desk = TokenDesk(settings.token_lifetime)
        self._wake = asyncio.Event()
        facts = release(settings.version)
        self._orchestrator = Orchestrator(facts, settings, self.now, self._hub)
        self._orchestrator.book.when_scheduled = self._wake.set
        self._worker_api = WorkerApi(facts, settings, self._orchestrator, self._desk, self._faults, self.now, self._hub)
        page = "/console/" if console is not None else None
        self._client_api = ClientApi(self._orchestrator, self._hub, self.cancel, self.version, page)
        self._console = console
        self._program = Program({}) if console is None else console.shown_program()
        self._figures = Figures(self._orchestrator, self._program, self.now)
        if console is not None:
            self._orchestrator.book.when_ended = self._figures.ended
        self._runner: web.AppRunner | None = None
        self._listening: socket.socket | None = None
        self._take_back: Callable[[], None] = lambda: None
        self._housekeeper: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Listen; after a `stop`, on the same port and with the same state. Raises OSError if the port is taken."""
        if self._runner is not None:
            raise RuntimeError("it is already running")
        app = web.Application(
            client_max_size=self.settings.max_body,
            middlewares=[Guard(self.host, self._worker_api.answers.headers).answer],
        )
        app.add_routes([*self._worker_api.routes(), *self._client_api.routes(), *self._console_routes()])
        # A handler whose client is gone is cancelled: a poll must not take a task that no one will receive.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_TIME)
        await runner.setup()
        try:
            self._listening = listening_socket(self.host, self._port)
            self._take_back = close_in_forked_children(self._listening.fileno())
            await web.SockSite(runner, self._listening, ssl_context=self.settings.tls).start()
        except BaseException:
            self._take_back()
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner
        self._hub.url = self.url
        for observer in tuple(OBSERVERS):
            observer.started(self.url, self.settings.lease)
        house = self._keep_house()
        self._housekeeper = asyncio.create_task(house, name="embedded orchestrator")  # noqa: TID251 - `stop` waits

    def _console_routes(self) -> list[web.RouteDef]:
        if self._console is None:
            return []
        limits = self.settings.rate_limits is not None
        about = {"protocol": self.version, "files": self._console.file_room is not None, "limits": limits}
        feed = Feed(
            self._orchestrator,
            self._hub,
            self._faults,
            self.requests,
            self._console.logs,
            self.now,
            about,
            self._program,
            self._figures,
        )
        return ConsoleApi(self._console, self._orchestrator, self._faults, feed, self._seem_restarted).routes()

    def _seem_restarted(self) -> None:
        """Have the same effect on workers as a restart: they become unknown, and their WebSockets are closed."""
        self.forget_workers()
        self._worker_api.commands.close()

    def sign_tasks(self, secret_key: str | None) -> None:
        """Sign tasks with this key from now on, or not at all with None. Releases before 1.0b17 never sign."""
        self._worker_api.task_signer = Signer(secret_key) if secret_key else None

    async def stop(self) -> None:
        """Stop listening; waiting polls get no task, streams and WebSockets end. Jobs and workers are kept."""
        runner, housekeeper = self._runner, self._housekeeper
        self._runner = self._housekeeper = None
        if runner is None or housekeeper is None:
            return
        housekeeper.cancel()
        await asyncio.gather(housekeeper, return_exceptions=True)
        if self._listening is not None:
            await stop_accepting(self._listening)
        self._take_back()
        for site in list(runner.sites):
            await site.stop()
        self._worker_api.polls.release()
        self._worker_api.commands.close()
        self._hub.close()
        await runner.cleanup()
        for observer in tuple(OBSERVERS):
            observer.stopped(self.url)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _keep_house(self) -> None:
        while True:
            self._wake.clear()
            self._orchestrator.tick()
            if self._console is not None:
                self._figures.look()
            due = self._orchestrator.next_due
            wait = _TICK if due is None else min(_TICK, max(0.001, due - self.now()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    # ------------------------------------------------------------------------------------------- time

    def now(self) -> float:
        """Return the time of the orchestrator's own clock, in Unix seconds."""
        return self.settings.clock() + self._clock_offset

    @property
    def clock_offset(self) -> float:
        """How many seconds its clock is ahead; this affects ``Date`` headers and every time check."""
        return self._clock_offset

    @clock_offset.setter
    def clock_offset(self, seconds: float) -> None:
        self._clock_offset = seconds
        self._orchestrator.tick()
        self._wake.set()

    # ------------------------------------------------------------------------------------------- state

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first `start` if any port was requested."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL for workers and clients."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - reading, not binding
        scheme = "http" if self.settings.tls is None else "https"
        return f"{scheme}://[{host}]:{self._port}" if ":" in host else f"{scheme}://{host}:{self._port}"

    @property
    def console_url(self) -> str | None:
        """The address of the console's page, or None without a console."""
        return f"{self.url}/console/" if self._console is not None else None

    @property
    def workers(self) -> Mapping[str, WorkerRecord]:
        """The registered workers by id."""
        return self._orchestrator.workers

    @property
    def jobs(self) -> Mapping[str, JobRecord]:
        """The jobs by id: all that have not ended, and the latest ended ones."""
        return self._orchestrator.book.jobs

    @property
    def requests(self) -> deque[RecordedCall]:
        """The workers' latest calls, in the order they were answered."""
        return self._worker_api.requests

    @property
    def problems(self) -> deque[Problem]:
        """What workers did wrong. Rate limits, expired tokens and injected faults do not count."""
        return self._orchestrator.problems

    async def wait_for(self, predicate: Callable[[], _T], timeout: float | None = 10.0) -> _T:
        """Return the first true value of ``predicate``, which is called at every change. Raises TimeoutError."""
        try:
            return await self._hub.wait_for(predicate, timeout)
        except TimeoutError:
            problems = "; ".join(str(problem) for problem in list(self.problems)[-3:])
            raise TimeoutError(f"not within {timeout} s; problems: {problems or 'none'}") from None

    async def wait_for_worker(self, worker_id: str | None = None, timeout: float | None = 10.0) -> WorkerRecord:
        """Return the worker, or any worker, once it is registered and idle. Raises TimeoutError."""

        def ready() -> WorkerRecord | None:
            for worker in self.workers.values():
                if worker_id in {None, worker.worker_id} and worker.status == "idle":
                    return worker
            return None

        worker = await self.wait_for(ready, timeout)
        assert worker is not None  # noqa: S101 - for type checkers: wait_for returns true values only
        return worker

    def subscribe(self, wanted: Callable[[Change], bool] | None = None) -> Subscription:
        """Return the changes from now on as an async iterator; it ends with `stop`."""
        return self._hub.subscribe(wanted)

    # ------------------------------------------------------------------------------------------- jobs and commands

    def submit(
        self,
        skill: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: float = 0.0,
        deadline: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        tracing_context: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        security: Mapping[str, Any] | None = None,
        params_metadata: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        worker_id: str | None = None,
    ) -> JobRecord:
        """Queue a job for the next matching poll.

        ``deadline`` is in Unix seconds; ``worker_id`` names the only worker that may get it; ``security`` may hold the
        ``identity_chain`` of nodes that the task claims to have passed through.
        Raises ValueError for values that cannot be sent to a worker.
        """
        return self._orchestrator.submit(
            NewJob(
                skill=skill,
                params=params or {},
                priority=priority,
                deadline=deadline,
                metadata=metadata,
                tracing_context=tracing_context,
                policy=policy,
                security=security,
                params_metadata=params_metadata,
                job_id=job_id,
                worker_id=worker_id,
            )
        )

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; its worker learns of it over the WebSocket if possible, otherwise with its next heartbeat.

        Returns False if there is no such job or it has ended.
        """
        job = self._orchestrator.book.jobs.get(job_id)
        if job is None or job.state.final:
            return False
        running = job.state is JobState.RUNNING
        self._orchestrator.cancel(job_id)
        if running:
            self._worker_api.commands.order_cancellation(job)
        return True

    async def send_command(self, worker_id: str, command: Mapping[str, Any]) -> None:
        """Send a command over a worker's WebSocket. Raises LookupError if it has none."""
        await self._worker_api.commands.send(worker_id, command)

    def request_full_sync(self, worker_id: str) -> None:
        """Ask for the catalog in the answers to a worker's heartbeats until it arrives. Raises KeyError."""
        self._orchestrator.workers[worker_id].full_sync = True

    def forget_workers(self) -> None:
        """Forget all workers and their tokens, as a restarted orchestrator does; the jobs are kept."""
        self._desk.forget()
        self._orchestrator.forget_workers()

    def inject(self, *faults: Fault) -> None:
        """Make calls fail as the faults describe."""
        self._faults.add(*faults)

    def clear_faults(self) -> None:
        """Drop the unused faults."""
        self._faults.clear()
