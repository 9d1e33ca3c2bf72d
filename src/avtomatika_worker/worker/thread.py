"""Runs a worker in its own thread, so that a blocking skill does not block the embedded orchestrator."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from avtomatika_worker import threadsafe
from avtomatika_worker._boundaries import caught
from avtomatika_worker._waiting import finish
from avtomatika_worker.config import Settings
from avtomatika_worker.execution.containment import contained_loop, run_to_end
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.assembly import loop_factory


class WorkerThread:
    """Runs ``worker.main`` in its own thread."""

    def __init__(
        self,
        worker: Worker,
        settings: Settings,
        *,
        resources: Mapping[Any, object] | None = None,
        prestart: bool = True,
    ) -> None:
        self._resources = resources
        self._prestart = prestart
        self._worker = worker
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._ended: Future[None] = Future()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="worker", daemon=True)

    def start(self) -> None:
        """Start the worker; return when its loop runs."""
        self._thread.start()
        self._up.wait()

    def request_shutdown(self) -> None:
        """Ask the worker to shut down; on the second call, to cut that short."""
        if self._loop is not None:
            threadsafe.CallQueue(self._loop).put(self._worker.request_shutdown)

    async def prestart(self) -> None:
        """Start the first skill process, as `Worker.prestart` does."""
        if self._loop is not None and not self._ended.done():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._worker.prestart(), self._loop))

    def ended(self) -> asyncio.Future[None]:
        """Return what is done once it has ended, and raises what ended it, if that was an error."""
        return asyncio.shield(asyncio.wrap_future(self._ended))

    def _run(self) -> None:
        loop = contained_loop(loop_factory())
        asyncio.set_event_loop(loop)
        with caught() as kept:
            run_to_end(loop, self._main())
        finish(self._ended, kept.error)
        self._up.set()
        with asyncio.Runner(loop_factory=lambda: loop):  # closes it; waits for skills that were given up
            pass

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._up.set)
        await self._worker.main(self._settings, health_check=False, resources=self._resources, prestart=self._prestart)
