"""`Checkpoint`: how a skill saves what it has done, and goes on from there at another attempt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from avtomatika_worker.checkpoints.keeper import Found
from avtomatika_worker.checkpoints.saved_state import State, StateMismatchError, check_type, written

_T = TypeVar("_T")


class Desk(Protocol):
    """Where checkpoints are handed in and out: a `Keeper`, or what stands for it in a skill process."""

    def is_due(self) -> bool:
        """Whether the next save is written at once."""
        ...

    def defer(self, state: State) -> None:
        """Write a state when the next one is due."""
        ...

    def begin(self, state: State, files: Sequence[str]) -> asyncio.Future[bool]:
        """Begin to write a checkpoint, on an event loop."""
        ...

    async def save(self, state: State, files: Sequence[str]) -> bool:
        """Write a checkpoint; return whether it is stored."""
        ...

    async def load(self) -> Found | None:
        """Return the newest complete checkpoint."""
        ...

    async def reject(self, problem: str) -> None:
        """Take back a checkpoint that was loaded."""
        ...

    def in_loop(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do ``work`` and wait for it, in a thread without a loop."""
        ...


class Saved(Awaitable[bool]):
    """The answer of ``ctx.checkpoint.save``: true when it is stored, or being stored.

    Await it in ``async def`` skills: that waits until it is stored, and returns whether it is. In a plain ``def`` it is
    complete as it is.
    """

    __slots__ = ("_stored", "_storing")

    def __init__(self, *, stored: bool, storing: asyncio.Future[bool] | None = None) -> None:
        self._stored = stored
        self._storing = storing

    def __bool__(self) -> bool:
        return self._stored

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait until it is stored, and return whether it is."""
        if self._storing is not None:
            self._stored = yield from self._storing.__await__()
        return self._stored

    def __repr__(self) -> str:
        return f"Saved({self._stored})"


class Checkpoint:
    """What a task saves of its work, so that another attempt goes on from there: here, or at another worker.

    It belongs to the task's work: its orchestrator, job, skill (of this version), step and params. It is removed when
    the orchestrator has accepted the result, kept when it retries the task, and removed after ``CHECKPOINT_MAX_AGE``.
    The methods are the same everywhere: ``await`` them in an ``async def`` skill, call them in a plain ``def``.
    """

    __slots__ = ("_desk", "_owner")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._owner = ""

    @property
    def due(self) -> bool:
        """Whether `save` would store now. Ask before you write large files for it."""
        return self._desk.is_due()

    def save(self, state: Any, files: Iterable[str | os.PathLike[str]] = (), *, now: bool = False) -> Saved:
        """Save a state (JSON, models and dataclasses included, or bytes) with ``files`` of the task's directory.

        At most once in ``CHECKPOINT_INTERVAL``, but with ``now``. Before that, a state without files is kept in memory
        and stored as soon as the time has come, or when the task ends without a result; with files, nothing happens.
        Returns `Saved`, false when it is not stored (yet): a full disk or an unreachable store is logged, and the last
        complete checkpoint stays. Leave the files alone until it is stored. Raises TypeError for a state that is
        neither JSON nor bytes, ValueError for one over 16 MiB, FileNotFoundError for a file that is missing, and
        `UnsafeNameError` for one elsewhere.
        """
        claim(self, "skill")
        content, names = written(state), _names(files)
        if not now and not self._desk.is_due():
            if not names:
                self._desk.defer(content)
            return Saved(stored=False)
        if is_on_loop():
            return Saved(stored=True, storing=self._desk.begin(content, names))
        return Saved(stored=self._desk.in_loop(lambda: self._desk.save(content, names)))

    def load(self, of: Any = None) -> Any:
        """Load the newest complete checkpoint and return its state; None if there is none.

        JSON is returned as an instance of the type ``of`` if that is given; bytes are returned as they are. The files
        are where they were in the task's directory. One that is damaged, or is no ``of``, is logged and not used.
        Raises `TransientError` if the store does not answer, TypeError for a type that JSON cannot be read as.
        """
        check_type(of)
        return self._load(of) if is_on_loop() else self._desk.in_loop(lambda: self._load(of))

    async def _load(self, of: Any) -> Any:
        found = await self._desk.load()
        if found is None:
            return None
        try:
            return found.state.read(of)
        except StateMismatchError as error:
            await self._desk.reject(str(error))
            return None


def claim(checkpoint: Checkpoint, owner: str) -> None:
    """Let ``owner`` be the one that saves. Raises RuntimeError if another one does: they would lose each other's."""
    if checkpoint._owner not in {"", owner}:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - hidden from skills
        raise RuntimeError(
            "a task saves its checkpoint either by ctx.checkpoint.save or by ctx.resumable, not by both:"
            " keep what the loop needs in its state"
        )
    checkpoint._owner = owner  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def is_on_loop() -> bool:
    """Whether this is an event loop's thread, which must not wait."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _names(files: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(files, str | os.PathLike):
        raise TypeError(f"files must be a list of names, not {files!r:.100}")
    return tuple(os.fspath(each) for each in files)
