"""Runs a worker under test from code without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.testing.harness import WorkerHarness
from avtomatika_worker.testing.result import SkillResult
from avtomatika_worker.testing.task_handle import RUN_TIMEOUT
from avtomatika_worker.worker import Worker

_T = TypeVar("_T")


class _Running(NamedTuple):
    """A harness on the client's thread; ``stop`` is called there."""

    harness: WorkerHarness
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None]


class WorkerClient:
    """Runs a worker for tests without ``async``, for as long as its ``with`` block lasts.

        with WorkerClient(worker) as c:
            result = c.run("resize", {"width": 100})
        assert result.data == {"width": 100}

    It is a `WorkerHarness` in an event loop on a thread of its own: tasks take the same path, and ``settings``,
    ``environ`` and ``resources`` are the same. Its calls block, so they raise RuntimeError in a thread whose event loop
    is running: use a `WorkerHarness` there. Calls from several threads run at the same time. Entering and leaving raise
    what those of a `WorkerHarness` raise.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        resources: Mapping[Any, object] | None = None,
    ) -> None:
        self.worker: Worker = worker
        self._settings = settings
        self._environ = environ
        self._resources = resources
        self._thread: ThreadPoolExecutor | None = None
        self._running: _Running | None = None
        self._ended: Future[None] = Future()

    # ------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        _refuse_in_a_loop()
        if self._thread is not None:
            raise RuntimeError("it is already running")
        started: Future[_Running] = Future()
        self._thread = thread = ThreadPoolExecutor(1, thread_name_prefix="worker-client")
        self._ended = thread.submit(lambda: asyncio.run(self._serve(started)))
        try:
            waited: list[Future[Any]] = [started, self._ended]
            wait(waited, return_when=FIRST_COMPLETED)
            if not started.done():
                self._ended.result()  # raises why
            self._running = started.result()
        except BaseException:
            if not started.cancel() and started.done():  # interrupted when it had just started
                _stop(started.result())
            self._thread = None
            thread.shutdown(wait=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        running, thread, self._running, self._thread = self._running, self._thread, None, None
        if running is None or thread is None:
            raise RuntimeError("it is not running")
        _stop(running)
        thread.shutdown()
        self._ended.result()

    async def _serve(self, started: Future[_Running]) -> None:
        """Run the harness until it is stopped."""
        harness = WorkerHarness(self.worker, settings=self._settings, environ=self._environ, resources=self._resources)
        async with harness:
            stopped = asyncio.Event()
            if started.set_running_or_notify_cancel():
                started.set_result(_Running(harness, asyncio.get_running_loop(), stopped.set))
                await stopped.wait()

    # ------------------------------------------------------------------------------------------- tasks

    def run(
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

        The arguments are those of `WorkerHarness.run`, which says what this raises. Ctrl+C cancels the task.
        """
        return self._call(
            lambda harness: harness.run(
                skill,
                params,
                timeout=timeout,
                deadline_in=deadline_in,
                priority=priority,
                metadata=metadata,
                checkpoint=checkpoint,
            )
        )

    def stream(self, skill: str, params: object = None, *, timeout: float | None = RUN_TIMEOUT) -> Iterator[Any]:
        """Run one task of a skill that yields, and yield what arrives, as `WorkerHarness.stream` does.

        Raises what that raises. Leaving the loop cancels the task: use ``contextlib.closing``.
        """
        chunks = self._started().harness.stream(skill, params, timeout=timeout)

        async def following() -> tuple[Any, ...]:
            async for chunk in chunks:
                return (chunk,)
            return ()

        try:
            while chunk := self._call(lambda _: following()):
                yield chunk[0]
        finally:
            self._call(lambda _: chunks.aclose())

    def store(self, name: str, content: str | bytes | Path) -> S3Uri:
        """Store a file for a task and return its URI, as `WorkerHarness.store` does, which says what this raises."""
        return self._started().harness.store(name, content)

    def _call(self, work: Callable[[WorkerHarness], Coroutine[Any, Any, _T]]) -> _T:
        """Return the result of ``work``, done on the client's thread. An interrupt cancels it."""
        running = self._started()
        result = asyncio.run_coroutine_threadsafe(work(running.harness), running.loop)
        try:
            return result.result()
        except BaseException:
            result.cancel()
            raise

    def _started(self) -> _Running:
        _refuse_in_a_loop()
        if self._running is None:
            raise RuntimeError("the worker is not running: use `with WorkerClient(worker) as c`")
        return self._running


def _stop(running: _Running) -> None:
    running.loop.call_soon_threadsafe(running.stop)


def _refuse_in_a_loop() -> None:
    """Raise where blocking would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "WorkerClient blocks, and an event loop is running in this thread: use `async with WorkerHarness(worker) as h`"
    )
