"""Waits for notices that this machine is about to be taken away. Runs on the link thread."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from avtomatika_worker.policy.backoff import Backoff, BackoffPolicy
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.preemption")

LOOK_EVERY: Final = 0.5
"""Seconds between two looks: "draining" is to be announced within a second."""

_RETRY: Final = BackoffPolicy(1.0, 30.0)
_LONGEST: Final = 64
"""Characters read of a file."""


class NoticeUnavailableError(Exception):
    """A source that cannot be asked now."""


class Notice(msgspec.Struct, frozen=True):
    """This machine is taken away in ``seconds``; None if nobody says when. ``what`` is for people."""

    seconds: float | None
    what: str


class NoticeSource(Protocol):
    """Where notices come from."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    async def wait(self) -> Notice:
        """Return the notice once there is one. Raises `NoticeUnavailableError`."""
        ...


def _nobody_asked(_seconds: float | None) -> None:
    """Do nothing about a notice."""


class Notices:
    """Waits for the first notice of each source.

    ``on_notice`` is called with the seconds that are left, on the link thread; it is set before that runs.
    """

    def __init__(self, sources: Sequence[NoticeSource], world: World = REAL) -> None:
        self.on_notice: Callable[[float | None], object] = _nobody_asked
        self._sources = sources
        self._random = world.random

    async def run(self) -> None:
        """Wait until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._watch(source), name=f"notices of {source.name}")
            await asyncio.Event().wait()

    async def _watch(self, source: NoticeSource) -> None:
        notice = await self._first(source)
        left = "some time" if notice.seconds is None else f"{notice.seconds:.0f} s"
        _log.warning(
            "%s: this machine is taken away in %s (%s): the worker takes no more tasks",
            source.name,
            left,
            notice.what,
            extra={"action": "preemption_notice"},
        )
        self.on_notice(notice.seconds)

    async def _first(self, source: NoticeSource) -> Notice:
        """Return the first notice; a source that cannot be asked is asked again, and the log says so once."""
        backoff, said, loop = Backoff(_RETRY), "", asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                return await source.wait()
            except NoticeUnavailableError as error:
                if loop.time() - began > _RETRY.maximum:  # it has answered since the last failure
                    backoff = Backoff(_RETRY)
                if str(error) != said:
                    said = str(error)
                    _log.warning(
                        "%s: no notice could be heard: %s; it is tried again",
                        source.name,
                        error,
                        extra={"action": "preemption_unavailable"},
                    )
                await asyncio.sleep(backoff.failed(self._random.random()))


class FileNotices:
    """A notice is a file that appears; a number in it is how many seconds are left."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The file."""
        return f"file:{self._path}"

    async def wait(self) -> Notice:
        """Return the notice once the file is there."""
        while True:
            content = await asyncio.to_thread(self._read)
            if content is not None:
                return Notice(_seconds(content), "the file is there")
            await asyncio.sleep(LOOK_EVERY)

    def _read(self) -> str | None:
        try:
            with self._path.open("rb") as file:
                return file.read(_LONGEST).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            return ""
        except OSError as error:
            raise NoticeUnavailableError(f"it cannot be read: {error.strerror}") from error


def _seconds(content: str) -> float | None:
    try:
        seconds = float(content)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds >= 0:
        return seconds
    if content:
        _log.warning(
            "the file of the notice holds %r, which is no number of seconds; WORKER_SHUTDOWN_TIMEOUT counts",
            content,
            extra={"action": "preemption_file_unreadable"},
        )
    return None
