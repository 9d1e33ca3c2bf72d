"""Keeps the checkpoints of one task: decides when one is written, and writes what is left when the task ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from avtomatika_worker.checkpoints.manifest import Manifest
from avtomatika_worker.checkpoints.saved_state import State
from avtomatika_worker.checkpoints.versions import Facts, Place, TooLargeError, Versions
from avtomatika_worker.errors import TaskError, TransientError, UnsafeNameError
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.files.workspace import Workspace
from avtomatika_worker.threadsafe import CallQueue

_T = TypeVar("_T")
_log: Final = logging.getLogger("avtomatika_worker.checkpoints")

SETTLE_TIMEOUT: Final = 5.0
"""Seconds for writing what is left when a task ends."""


class StartTask(Protocol):
    """Begins an asyncio task that somebody waits for."""

    def __call__(self, work: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Begin ``work`` and return its task."""
        ...


class Found(msgspec.Struct, frozen=True):
    """A checkpoint that was loaded: its state, and the names of its files, which are in the task's directory."""

    state: State
    files: tuple[str, ...]


class Keeper:
    """The checkpoints of one task, under ``key``. Used on the main loop, but for `is_due`, `defer` and `in_loop`."""

    def __init__(
        self,
        key: str,
        place: Place,
        facts: Facts,
        scratch: Workspace,
        files: Callable[[], FileOperations],
        *,
        interval: float,
        start: StartTask,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """``files`` returns the task's; ``interval`` is the least number of seconds between two writes.

        ``loop`` is the main loop. Made in any thread.
        """
        self.key: str = key
        self.used: bool = False
        self._versions = Versions(key, place, facts, scratch)
        self._disk = place.disk
        self._monotonic = place.world.monotonic
        self._skill = facts.skill
        self._scratch = scratch
        self._files = files
        self._interval = interval
        self._start = start
        self._loop = loop
        self._turn = asyncio.Lock()
        self._writes: set[asyncio.Task[bool]] = set()
        self._restored: list[Path] = []
        self._timer: asyncio.TimerHandle | None = None
        self._guard = threading.Lock()
        self._deferred: State | None = None
        self._begun = 0
        self._due_at = 0.0
        self._writing = 0
        self._closed = False

    # ------------------------------------------------------------------------------------------ any thread

    def is_due(self) -> bool:
        """Whether the next save is written at once: the last one is long enough ago, and none is being written."""
        with self._guard:
            return not self._closed and not self._writing and self._monotonic() >= self._due_at

    def due_in(self) -> float:
        """Return the seconds until the next save is written at once."""
        with self._guard:
            return max(0.0, self._due_at - self._monotonic())

    def defer(self, state: State) -> None:
        """Write a state when the next one is due; until then a newer one takes its place."""
        with self._guard:
            is_first, self._deferred = self._deferred is None, state
        if is_first:
            CallQueue(self._loop).put(self._set_timer)

    def in_loop(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do ``work`` on the main loop and wait for it, in a thread without a loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    # ------------------------------------------------------------------------------------------ the main loop

    def begin(self, state: State, files: Sequence[str]) -> asyncio.Future[bool]:
        """Begin to write a checkpoint; the future says whether it is stored. It may be called on another loop too.

        Its failures are logged. Awaited, it raises FileNotFoundError and `UnsafeNameError` for wrong ``files``.
        """
        if asyncio.get_running_loop() is not self._loop:
            return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.save(state, files), self._loop))
        if self._closed:  # a thread that was given up saves on: its work may be done again, or its result be accepted
            return self._refused()
        return self._begin(state, files)

    def _begin(self, state: State, files: Sequence[str]) -> asyncio.Future[bool]:
        with self._guard:
            self._deferred = None  # this one is newer
            self._writing += 1
            self._begun += 1
            number = self._begun
            self._due_at = self._monotonic() + self._interval
        writing = self._start(self._save(state, files), name="write a checkpoint")
        self._writes.add(writing)

        def written(task: asyncio.Task[bool]) -> None:
            self._writes.discard(task)
            with self._guard:
                self._writing -= 1
                is_stored = not task.cancelled() and task.exception() is None and task.result()
                if not is_stored and not files and number == self._begun and self._deferred is None:
                    self._deferred = state  # tried again at the next notice of preemption, or when the task ends

        writing.add_done_callback(written)
        return asyncio.shield(writing)

    def _refused(self) -> asyncio.Future[bool]:
        _log.warning(
            "a checkpoint of skill %s is not saved: its task has ended",
            self._skill,
            extra={"action": "checkpoint_failed", "skill": self._skill},
        )
        refused: asyncio.Future[bool] = self._loop.create_future()
        refused.set_result(False)
        return refused

    async def save(self, state: State, files: Sequence[str]) -> bool:
        """Write a checkpoint, as `begin`."""
        return await self.begin(state, files)

    async def load(self) -> Found | None:
        """Return the newest complete checkpoint, its files put where they were; None if there is none.

        What is damaged is logged. Raises `TransientError` if the store does not answer: to begin again would cost more
        than another attempt.
        """
        if self._closed:
            return None
        try:
            async with contextlib.aclosing(self._versions.read()) as versions:
                async for manifest in versions:
                    if await self._restore(manifest):
                        self.used = True
                        return Found(manifest.content(), tuple(each.name for each in manifest.files))
        except TransientError:
            raise
        except (OSError, TaskError) as error:
            _log.error(
                "checkpoints of skill %s cannot be read, it begins again: %s",
                self._skill,
                error,
                extra={"action": "checkpoint_unreadable", "skill": self._skill},
            )
        return None

    async def reject(self, problem: str) -> None:
        """Take back a checkpoint that was loaded, and log why."""
        _log.warning(
            "the checkpoint of skill %s is not used, it begins again: %s",
            self._skill,
            problem,
            extra={"action": "checkpoint_mismatch", "skill": self._skill},
        )
        await self._remove_restored()

    def hurry(self) -> None:
        """Write what is deferred now, and the next save at once: there is not much time left."""
        with self._guard:
            self._due_at = 0.0
        self._write_deferred()

    def close(self) -> None:
        """Save and load nothing from now on. Called in any thread."""
        with self._guard:
            self._closed = True

    async def settle(self, *, wanted: bool) -> None:
        """Take the end of the task: nothing is saved from now on.

        With ``wanted``, another attempt will want the newest state: it is written. Takes at most `SETTLE_TIMEOUT`.
        """
        self.close()
        with self._guard:
            state, self._deferred = self._deferred, None
        if self._timer is not None:
            self._timer.cancel()
        if wanted and state is not None:
            self._begin(state, ())
        if not wanted:
            for each in self._writes:
                each.cancel()
        if self._writes:
            _, late = await asyncio.wait(set(self._writes), timeout=SETTLE_TIMEOUT)
            for each in late:
                each.cancel()
        if self._scratch.made is not None:
            await self._disk.run(self._scratch.remove)

    # ------------------------------------------------------------------------------------------ inside

    async def _save(self, state: State, files: Sequence[str]) -> bool:
        paths: dict[str, Path] = {}
        for name in files:
            path = await self._disk.run(self._files().workspace.file, name)
            paths[path.relative_to(self._files().workspace.get_root()).as_posix()] = path
        async with self._turn:
            self.used = True
            try:
                await self._versions.write(state, paths)
            except (TooLargeError, OSError, TaskError) as error:
                _log.warning(
                    "a checkpoint of skill %s is not saved, the last one stays: %s",
                    self._skill,
                    error,
                    extra={"action": "checkpoint_failed", "skill": self._skill},
                )
                return False
        return True

    async def _restore(self, manifest: Manifest) -> bool:
        """Put the files of a version into the task's directory; return false if one cannot be put there."""
        self._restored = []
        for each in manifest.files:
            try:
                path = await self._disk.run(self._files().workspace.path_to, each.name)
                await self._disk.run(self._versions.fetched(each).replace, path)
            except (UnsafeNameError, OSError) as error:
                _log.warning(
                    "a checkpoint of skill %s cannot be used: %s",
                    self._skill,
                    error,
                    extra={"action": "checkpoint_damaged", "skill": self._skill},
                )
                await self._remove_restored()
                return False
            self._restored.append(path)
        return True

    async def _remove_restored(self) -> None:
        for path in self._restored:
            await self._disk.run(path.unlink, missing_ok=True)

    def _set_timer(self) -> None:
        with self._guard:
            delay = self._due_at - self._monotonic()
        if self._timer is not None:  # for a state that was written with another one
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, delay), self._write_deferred)

    def _write_deferred(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._guard:
            state = None if self._closed else self._deferred
        if state is not None:
            self.begin(state, ())
