"""Runs a whole worker under test against an embedded orchestrator over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from avtomatika_worker.devserver import EmbeddedOrchestrator, WorkerRecord
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.testing.checkpoint_shelf import CheckpointShelf, temporary_directory
from avtomatika_worker.testing.local_storage import Storage
from avtomatika_worker.testing.result import SkillResult
from avtomatika_worker.testing.streamed import ChunkReader
from avtomatika_worker.testing.task_handle import RUN_TIMEOUT, RunningTask
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.file_settings import make_files, with_own_files
from avtomatika_worker.worker.make_checkpoints import make_checkpoints
from avtomatika_worker.worker.thread import WorkerThread

_T = TypeVar("_T")

START_TIMEOUT: Final = 30.0
"""Seconds within which the worker must register, on a machine busy with other tests."""

_SETTINGS: Final[Mapping[str, Any]] = {
    "enable_websockets": True,  # cancellation arrives at once
    "result_durability": "off",  # the orchestrator forgets everything when it ends
    "progress_interval": 0.0,
    "registration_retry_initial_delay": 0.02,
    "registration_retry_max_delay": 0.2,
    "result_retry_initial_delay": 0.02,
    "result_retry_max_delay": 0.2,
    "rate_limit_wait": 0.2,
    "orchestrator_rate_limit": "off",  # the embedded one has none: chunks come as they are yielded
    "shutdown_timeout": 0.2,  # a task left behind by a test is cancelled
}
_ELSEWHERE: Final = ("orchestrators_config", "individual_token", "tls_ca_path", "tls_cert_path", "tls_key_path")


class WorkerHarness:
    """Runs a worker with an embedded orchestrator for as long as its ``async with`` block lasts.

        async with WorkerHarness(worker) as h:
            result = await h.run("resize", {"width": 100})
        assert result.data == {"width": 100}

    A task takes the full path: signed, polled, validated, passed through the middlewares, run, reported. ``settings``
    override the worker's by field name, as in ``{"max_concurrent_tasks": 1}``. Variables are read only from
    ``environ``, never from the environment itself. Failed tasks are not retried unless ``orchestrator`` (started, and
    stopped, by the caller) does so. The worker runs in the test's own event loop or, with ``own_thread``, in one of its
    own: then an ``async def`` skill that blocks does not block the orchestrator.

    ``resources`` replace the worker's resources by type, as in ``{Model: FakeModel()}``: the originals are then not
    created. In place of a type of models, the value is the model of every name. For skills with ``executor="process"``
    they are pickled. The process for such skills starts when the first of them is run: if it cannot start, `run` raises
    the reason before the task begins.

    Pass a file to a task as a `Path` in its params, or as the URI that `store` returns; files come back in the result's
    ``files``. A temporary directory serves as the object store (this needs the extra ``[s3]``, but no server). It
    exists as long as the harness or one of its results does.

    Entering raises `ConfigError`, `SkillDefinitionError`, `SkillLoadError` or `ResourceError`, as starting the worker
    would. Tasks still running at the end are cancelled. A worker may have one harness after another, but not two at the
    same time. Use a harness in the event loop that it was started in; elsewhere its methods raise RuntimeError.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        orchestrator: EmbeddedOrchestrator | None = None,
        own_thread: bool = False,
        resources: Mapping[Any, object] | None = None,
    ) -> None:
        self.worker: Worker = worker
        self.orchestrator: EmbeddedOrchestrator = orchestrator or EmbeddedOrchestrator(max_attempts=1)
        self._owned = orchestrator is None
        self._settings = dict(settings or {})
        self._environ = dict(environ or {})
        self._own_thread = own_thread
        self._resources = dict(resources or {})
        self._running: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] = worker.request_shutdown
        self._prestart: Callable[[], Coroutine[Any, Any, None]] = worker.prestart
        self._worker_id = ""
        self._storage: Storage | None = None
        self._shelf: CheckpointShelf | None = None

    # ------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Start both, and wait until the worker accepts tasks. Prefer ``async with``."""
        if self._running is not None:
            raise RuntimeError("it is already running")
        self._loop = asyncio.get_running_loop()
        if self._owned:
            await self.orchestrator.start()
        try:
            self._running = self._start_worker()
            await self._unless_ended(self.orchestrator.wait_for(self._ready, START_TIMEOUT))
        except BaseException:
            await self._end()
            raise

    async def stop(self) -> None:
        """Shut down the worker, and the orchestrator if the harness owns it. Raises the worker's crash, if any."""
        self._check_loop()
        running = self._running
        await self._end()
        if running is not None and not running.cancelled():
            running.result()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _start_worker(self) -> asyncio.Future[None]:
        """Return an awaitable that is done when the worker has ended."""
        here = {"orchestrator_url": self.orchestrator.url, "token": self.orchestrator.token}
        overrides = {**_SETTINGS, **self._settings, **dict.fromkeys(_ELSEWHERE), **here}
        settings = self.worker.load_settings({"WORKER_ID": "test-worker", **self._environ}, overrides)
        self._worker_id = settings.worker_id
        if self._owned:
            self.orchestrator.sign_tasks(settings.orchestrators[0].secret_key)
        self._storage = self._storage or Storage(settings.file_store_root)
        if "file_store_root" not in self._settings:
            settings = dataclasses.replace(settings, file_store_root=self._storage.root)
        if "file_sources" not in self._settings and settings.file_store_root is not None:
            settings = with_own_files(settings, settings.file_store_root)
        settings = dataclasses.replace(settings, state_dir=settings.state_dir or temporary_directory(self))
        checkpoints = partial(make_checkpoints, settings)
        self._shelf = CheckpointShelf(make_files(settings), checkpoints, self.orchestrator, self.worker.skills)
        if self._own_thread:
            thread = WorkerThread(self.worker, settings, resources=self._resources, prestart=False)
            self._stop, self._prestart = thread.request_shutdown, thread.prestart
            thread.start()
            return thread.ended()
        main = self.worker.main(settings, health_check=False, resources=self._resources, prestart=False)
        return asyncio.create_task(main)  # noqa: TID251 - from `start` to `stop`, which waits for it

    def _ready(self) -> WorkerRecord | None:
        worker = self.orchestrator.workers.get(self._worker_id)
        if worker is None or worker.status != "idle":
            return None
        announced = as_object(as_object(worker.registration.get("capabilities")).get("extra"))
        if announced.get("websockets") and not (worker.connected and worker.websockets):
            return None  # a cancellation would have to wait for a heartbeat
        return worker

    async def _end(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            if not running.done():
                self._stop()
            await asyncio.wait({running})
        if self._shelf is not None:
            await self._shelf.close()
        if self._owned:
            await self.orchestrator.stop()

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are loaded in the worker's own process."""
        return self.worker.loaded_models

    # ------------------------------------------------------------------------------------------- tasks

    async def run(
        self,
        skill: str,
        params: object = None,
        *,
        timeout: float | None = RUN_TIMEOUT,
        deadline_in: float | None = None,
        priority: float = 0.0,
        metadata: Mapping[str, Any] | None = None,
        checkpoint: object = None,
    ) -> SkillResult:
        """Run one task and return its result; a failure is a result too.

        ``params`` is a mapping, or the skill's model or dataclass; a `Path` in it is a file that the task gets.
        ``deadline_in`` is in seconds from now. ``checkpoint`` is what a former attempt has left: a state, or a
        `SeenCheckpoint`, such as that of another result.
        Raises ValueError for a skill that the worker does not have, TimeoutError after ``timeout`` seconds,
        `SkillDefinitionError`, `ResourceError` or `ProcessStartError` for a skill whose process does not start, and
        the worker's own exception if it crashes. Cancelling the call cancels the task.
        """
        self._check_loop()
        await self._prepare(skill)
        plain, job_id = self._params(skill, params), None
        if checkpoint is not None:
            job_id = await self._shelf_of_worker().put(skill, plain, checkpoint)
        task = self._submit(skill, plain, deadline_in, priority, metadata, job_id)
        try:
            return await task.result(timeout)
        except BaseException:
            task.cancel()
            raise

    async def run_many(
        self, skill: str, params: Iterable[object], *, timeout: float = RUN_TIMEOUT
    ) -> list[SkillResult]:
        """Run a task for each of these params at the same time, and return their results in order.

        For batched skills, above all. The params, and what is raised, are as in `run`; all tasks together have
        ``timeout`` seconds. Whatever is raised cancels those that have not ended.
        """
        self._check_loop()
        await self._prepare(skill)
        tasks, loop = [self.submit(skill, each) for each in params], asyncio.get_running_loop()
        until = loop.time() + timeout
        try:  # one after the other: each wait looks at every change
            return [await task.result(max(0.0, until - loop.time())) for task in tasks]
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def _prepare(self, skill: str) -> None:
        """Start a skill's process: this does not count toward the time of its tasks."""
        if (known := self.worker.skills.get(skill)) is not None and known.options.in_process:
            await self._unless_ended(self._prestart())

    async def stream(
        self, skill: str, params: object = None, *, timeout: float | None = RUN_TIMEOUT
    ) -> AsyncGenerator[Any]:
        """Run one task of a skill that yields, and yield what arrives: texts, bytes, or items one by one.

        Pieces of a text may come joined. Raises the task's error, as a `TaskError`, if it fails, TimeoutError if
        nothing comes for ``timeout`` seconds, and ValueError for a skill that does not yield. Leaving the loop cancels
        the task: use ``contextlib.aclosing``.
        """
        self._check_loop()
        await self._prepare(skill)
        task = self.submit(skill, params)
        try:
            async with contextlib.aclosing(task.stream(timeout)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BaseException:
            task.cancel()
            raise
        result = await task.result(timeout)
        if not result.ok:
            raise result.to_error()

    def submit(
        self,
        skill: str,
        params: object = None,
        *,
        deadline_in: float | None = None,
        priority: float = 0.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunningTask:
        """Begin a task and return it for watching, cancelling or waiting. Raises ValueError as `run` does."""
        return self._submit(skill, self._params(skill, params), deadline_in, priority, metadata)

    def _submit(
        self,
        skill: str,
        params: dict[str, Any],
        deadline_in: float | None,
        priority: float,
        metadata: Mapping[str, Any] | None,
        job_id: str | None = None,
    ) -> RunningTask:
        now = self.orchestrator.now()
        job = self.orchestrator.submit(
            skill,
            params,
            deadline=None if deadline_in is None else now + deadline_in,
            priority=priority,
            metadata=metadata,
            job_id=job_id,
            worker_id=self._worker_id,
        )
        reader, shelf = ChunkReader(self.worker.skills, skill), self._shelf_of_worker()
        return RunningTask(job, self.orchestrator, self._unless_ended, self._running_storage(), reader, shelf)

    def _params(self, skill: str, params: object) -> dict[str, Any]:
        storage = self._check_skill(skill)
        plain = to_plain(params if params is not None else {})
        if not is_dict(plain):
            raise ValueError(f"params must be a mapping, a model or a dataclass, not {type(params).__name__}")
        return storage.with_uris(params, plain)

    def _shelf_of_worker(self) -> CheckpointShelf:
        assert self._shelf is not None  # noqa: S101 - `_check_skill` has asked
        return self._shelf

    def store(self, name: str, content: str | bytes | Path) -> S3Uri:
        """Store a file for a task and return its URI, for use as a param or as part of one.

        ``content`` is a text, bytes, or the path of a file or directory to copy. Raises ValueError for a ``name`` with
        a directory in it, OSError if copying fails.
        """
        return self._running_storage().put(name, content)

    def _running_storage(self) -> Storage:
        if self._running is None or self._storage is None:
            raise RuntimeError("the worker is not running: use `async with WorkerHarness(worker) as h`")
        return self._storage

    def _check_skill(self, skill: str) -> Storage:
        storage = self._running_storage()
        names = self.worker.skills.names()
        if skill not in names:
            near = difflib.get_close_matches(skill, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
            raise ValueError(f"the worker has no skill {skill!r}; {hint}")
        return storage

    def _check_loop(self) -> None:
        """Raise in another event loop, where nothing would ever wake the caller."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "the harness was started in a different event loop: with pytest-asyncio, give "
                "asyncio_default_fixture_loop_scope and asyncio_default_test_loop_scope the same value"
            )

    async def _unless_ended(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of ``work``. If the worker ends first, raises what ended it."""
        task = asyncio.create_task(work)  # noqa: TID251 - waited for below in any case
        waited: set[asyncio.Future[Any]] = {task} if self._running is None else {task, self._running}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._running is not None:
            self._running.result()
        raise RuntimeError("the worker has ended")


class StartHarness(Protocol):
    """The type of the fixture ``worker_harness``."""

    async def __call__(
        self,
        worker: Worker,
        *,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        orchestrator: EmbeddedOrchestrator | None = None,
        own_thread: bool = False,
        resources: Mapping[Any, object] | None = None,
    ) -> WorkerHarness:
        """Start a worker that stops when the test ends. The arguments are those of `WorkerHarness`."""
        ...
