"""The task's context in a skill process: reports, requests and file operations go to the worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from avtomatika_worker.execution.controls import Cancelling, Controls
from avtomatika_worker.execution.payloads import EventFacts, plain_payload, unsendable
from avtomatika_worker.execution.preempting import Preempting
from avtomatika_worker.execution.processes.child_connection import ChildConnection
from avtomatika_worker.execution.processes.remote_desk import RemoteDesk
from avtomatika_worker.execution.processes.wire import error_from
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.objects import Objects
from avtomatika_worker.files.offload import facts_of
from avtomatika_worker.files.permit import Permit
from avtomatika_worker.files.stored_uri import StoredUri
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.files.workspace import Name, Workspace
from avtomatika_worker.protocol.dialects import OLDEST
from avtomatika_worker.protocol.messages import PROGRESS_EVENT, FileMetadata, Task
from avtomatika_worker.skills.chunks import ChunkKind

_T = TypeVar("_T")
Notify = Callable[..., None]
Ask = Callable[..., Future[Any]]


class WorkerProxy:
    """Calls the worker. Several calls may be waiting for answers at the same time."""

    def __init__(self, connection: ChildConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._disk = Disk()

    def notify(self, task: int, verb: str, *arguments: object) -> None:
        """Send a notice, which needs no answer."""
        self._connection.send("report", task, verb, arguments)

    def ask(self, task: int, verb: str, *arguments: object) -> Future[Any]:
        """Send a question, and return a future for the answer."""
        number, future = next(self._numbers), Future[Any]()
        self._waiting[number] = future
        self._connection.send("call", task, number, verb, arguments)
        return future

    def answered(self, number: int, value: Any, *, good: bool) -> None:
        """Take an answer. Called in the listening thread."""
        future = self._waiting.pop(number, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if good:
            future.set_result(value)
        else:
            future.set_exception(error_from(value))

    def controls(
        self,
        number: int,
        facts: dict[str, Any],
        worker_id: str,
        resources: Mapping[Any, object],
        cancelling: Cancelling,
        preempting: Preempting,
    ) -> Controls:
        """Return a task's own controls: a thread that outlives its task never affects the next task."""
        notify, ask = partial(self.notify, number), partial(self.ask, number)
        controls: Controls = _Controls(
            notify,
            msgspec.convert(facts["task"], Task),
            worker_id,
            sink=_Sink(notify, ask),
            check_event=partial(_send_event, ask),
            hot=_Hot(notify),
            files=partial(_Files, ask, self._disk),
            resources=resources,
            cancelling=cancelling,
            preempting=preempting,
            desk=partial(_desk, notify, ask),
        )
        controls.costs.update(facts["costs"])
        return controls


def _desk(notify: Notify, ask: Ask, controls: Controls) -> RemoteDesk:
    return RemoteDesk(notify, ask, controls.preempting)


def _send_event(
    ask: Ask, skill: str, event_type: str, payload: object, facts: EventFacts
) -> tuple[dict[str, Any] | None, str | None]:
    """Have the worker validate an event and send it in one step: only the worker knows the declarations."""
    del skill  # the worker knows which task is asking
    plain, problem = plain_payload(payload)
    if plain is None or event_type == PROGRESS_EVENT:  # progress is sent separately
        return plain, problem
    # An event that no orchestrator accepts cannot be sent to the worker either.
    problem = unsendable(event_type, plain, OLDEST, facts=facts) or ask("event", event_type, plain, facts).result()
    return (None, problem) if problem is not None else (plain, None)


class _Controls(Controls):
    """Reports costs at once, so that a killed task keeps what it added so far."""

    def __init__(self, notify: Notify, task: Task, worker_id: str, **surroundings: Any) -> None:
        super().__init__(task, worker_id, **surroundings)
        self._notify = notify

    def add_cost(self, name: str, amount: float) -> None:
        super().add_cost(name, amount)
        self._notify("cost", name, amount)


_AHEAD: Final = 64 * 2**10
"""Bytes of chunks to send to the worker before asking it whether there is room ..."""

_CHUNKS_AHEAD: Final = 256
"""... or their number."""

_LOOK_EVERY: Final = 0.1
"""Seconds between checks for cancellation while a skill waits for room."""


class _Sink:
    """Sends chunks and progress, which the worker coalesces. Events were already sent when they were validated."""

    def __init__(self, notify: Notify, ask: Ask) -> None:
        self._notify = notify
        self._ask = ask
        self._ahead = self._chunks = 0

    def progress(self, progress: float, message: str) -> None:
        self._notify("progress", progress, message)

    def event(self, event_type: str, payload: dict[str, Any], facts: EventFacts) -> None:
        del event_type, payload, facts

    def room(self) -> Generator[Any, None, None]:
        yield from ()

    def chunk(self, kind: ChunkKind, data: Any, size: int) -> bool:
        self._notify("chunk", kind.value, data, size)
        self._ahead += size
        self._chunks += 1
        return self._ahead < _AHEAD and self._chunks < _CHUNKS_AHEAD

    async def chunk_room(self) -> None:
        await asyncio.wrap_future(self._ask_for_room())

    def wait_for_chunk_room(self, stopped: Callable[[], bool]) -> None:
        there = self._ask_for_room()
        while not stopped():
            with contextlib.suppress(TimeoutError):
                there.result(_LOOK_EVERY)
                return

    def _ask_for_room(self) -> Future[None]:
        self._ahead = self._chunks = 0
        return self._ask("chunk_room")


class _Hot:
    def __init__(self, notify: Notify) -> None:
        self._notify = notify

    def add(self, name: str) -> None:
        self._notify("hot", name)

    def remove(self, name: str) -> None:
        self._notify("cold", name)


class _Directories:
    """Has the worker create the task's directory; the worker also removes it."""

    def __init__(self, ask: Ask) -> None:
        self._call = ask

    def make(self, task_id: str) -> Path:
        del task_id
        return Path(self._call("directory").result())

    def remove(self, path: Path) -> None:
        del path


def _stored(fields: dict[str, Any]) -> StoredUri:
    return StoredUri(FileMetadata(**fields))


class _Files(FileOperations):
    """Reads and writes files here, in the task's directory; the worker transfers them."""

    def __init__(self, ask: Ask, disk: Disk, controls: Controls) -> None:
        task = controls.task
        super().__init__(
            Workspace(task.task_id, _Directories(ask)),
            disk,
            cast("Objects", None),  # every method that needs them is overridden
            Permit(task.job_id),
            job_id=task.job_id,
            task_id=task.task_id,
            notify=controls.say,
            loop=None,
        )
        self._call = ask

    @property
    def stores_results(self) -> bool:
        return True  # the worker is asked each time

    async def write_json(self, name: Name, value: Any) -> StoredUri | None:
        await self.disk.run(self.workspace.write_json, name, value)
        stored = await self._ask("upload_json", os.fspath(name))
        return None if stored is None else _stored(stored)

    async def upload_file(self, name: Name, target: str | None = None) -> StoredUri:
        return _stored(await self._ask("upload_file", os.fspath(name), target))

    async def upload_dir(self, name: Name = "", target: str | None = None) -> StoredUri:
        return _stored(await self._ask("upload_dir", os.fspath(name), target))

    async def download_file(self, uri: str, name: Name | None = None, verify_meta: Any = None) -> Path:
        facts = None if verify_meta is None else facts_of(verify_meta)
        return Path(await self._ask("download", uri, None if name is None else os.fspath(name), facts))

    def in_loop(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do ``work`` and wait for it, in a thread without a loop. Raises RuntimeError on an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work())
        raise RuntimeError("files.sync is for plain def skills: in an async def, await the methods of files itself")

    async def _ask(self, verb: str, *arguments: object) -> Any:
        return await asyncio.wrap_future(self._call(verb, *arguments))
