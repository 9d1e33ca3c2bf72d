"""The checkpoints of a worker: it makes the keeper of each task's, removes what is not wanted any more, and sweeps."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from avtomatika_worker._boundaries import caught
from avtomatika_worker._waiting import finish
from avtomatika_worker.checkpoints.blobs import Blob
from avtomatika_worker.checkpoints.keeper import Keeper, StartTask
from avtomatika_worker.checkpoints.versions import Facts, Place, remove_all
from avtomatika_worker.errors import TaskError
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.threadsafe import CallQueue

_log: Final = logging.getLogger("avtomatika_worker.checkpoints")

REMOVE_TIMEOUT: Final = 10.0
"""Seconds for removing a checkpoint whose result was accepted; what is left then is removed by its age."""

SWEEP_EVERY: Final = 3600.0
"""Seconds between two looks for checkpoints that are too old."""


class Checkpoints:
    """The checkpoints of all tasks of a worker. Made on the main loop, and used there but for `remove`."""

    def __init__(self, place: Place, files: Files, worker_id: str, *, interval: float, start: StartTask) -> None:
        self._place = place
        self._task_files = files
        self._worker_id = worker_id
        self._interval = interval
        self._start = start
        self._loop = asyncio.get_running_loop()

    def keeper(self, work: WorkKey, version: str | None, task_id: str, files: Callable[[], FileOperations]) -> Keeper:
        """Return the keeper of a task that does ``work``; ``version`` is its skill's. Called in any thread."""
        return Keeper(
            checkpoint_key(work, version),
            self._place,
            Facts(self._worker_id, work.skill, task_id),
            self._task_files.scratch(f"checkpoint-{self._place.name()}"),
            files,
            interval=self._interval,
            start=self._start,
            loop=self._loop,
        )

    async def remove(self, key: str) -> None:
        """Remove a checkpoint that nobody will load any more. Called on any loop. Never raises: it is logged.

        Takes at most `REMOVE_TIMEOUT`.
        """
        if asyncio.get_running_loop() is self._loop:
            await self._remove(key)
            return
        done: Future[None] = Future()
        CallQueue(self._loop).put(self._begin_removal, key, done)
        with contextlib.suppress(TimeoutError):  # a skill blocks the main loop: it is removed after that
            async with asyncio.timeout(REMOVE_TIMEOUT):
                await asyncio.wrap_future(done)

    async def run(self) -> None:
        """Remove what is too old, now and then, until cancelled."""
        random = self._place.world.random
        if self._place.blobs.is_shared:  # workers that start together would all list the same
            await asyncio.sleep(SWEEP_EVERY * random.random())
        while True:
            await self.sweep()
            await asyncio.sleep(SWEEP_EVERY * random.uniform(0.5, 1.0))

    async def sweep(self) -> None:
        """Remove the checkpoints that nobody has written to for ``CHECKPOINT_MAX_AGE``. Never raises."""
        oldest = self._place.world.wall() - self._place.max_age
        try:
            found = await self._place.blobs.list("")
            newest: dict[str, float] = {}
            for name, blob in found.items():
                key = name.partition("/")[0]
                newest[key] = max(newest.get(key, 0.0), blob.modified)
            old = {name: blob for name, blob in found.items() if newest[name.partition("/")[0]] < oldest}
            await remove_all(self._place.blobs, old)
        except (OSError, TaskError) as error:
            _log.warning(
                "checkpoints that are too old stay in %s: %s",
                self._place.blobs.place,
                error,
                extra={"action": "checkpoints_not_swept"},
            )
            return
        if old:
            count = sum(modified < oldest for modified in newest.values())
            _log.info("%d checkpoints were too old and are removed", count, extra={"action": "checkpoints_swept"})

    def _begin_removal(self, key: str, done: Future[None]) -> None:
        async def remove() -> None:
            with caught() as kept:
                await self._remove(key)
            if not done.done():
                finish(done, kept.error)

        self._start(remove(), name="remove a checkpoint")

    async def _remove(self, key: str) -> None:
        try:
            async with asyncio.timeout(REMOVE_TIMEOUT):
                found: dict[str, Blob] = await self._place.blobs.list(key)
                await remove_all(self._place.blobs, found)
        except (OSError, TaskError, TimeoutError) as error:
            _log.warning(
                "a checkpoint that is not needed any more stays in %s until it is too old: %s",
                self._place.blobs.place,
                str(error) or "it takes too long",
                extra={"action": "checkpoint_left"},
            )


def checkpoint_key(work: WorkKey, version: str | None) -> str:
    """Return the key of a task's checkpoint: of its work, and of the skill's version."""
    return hashlib.sha256(f"{work.digest} {version or ''}".encode()).hexdigest()[:40]
