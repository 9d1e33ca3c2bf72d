"""`Resumable`: a loop that goes on where a former attempt at its task stopped."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import Any, Final, Generic, TypeVar

from avtomatika_worker.checkpoints.checkpoint import Checkpoint, Desk, claim, is_on_loop
from avtomatika_worker.checkpoints.saved_state import (
    State,
    StateMismatchError,
    check_restorable,
    converted,
    plain,
    written,
)
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_object

_T = TypeVar("_T")
_MARK: Final = "$loops"


class Loops:
    """The resumable loops of one task, which share its checkpoint."""

    def __init__(self, checkpoint: Checkpoint, desk: Desk, check: Callable[[], None]) -> None:
        """``check`` raises what ends a loop whose task should stop."""
        self.check: Callable[[], None] = check
        self.desk: Desk = desk
        self.checkpoint: Checkpoint = checkpoint
        self._names: set[str] = set()
        self._records: dict[str, Any] | None = None

    def add(self, name: str) -> None:
        """Take in another loop.

        Raises ValueError for a name that is taken, RuntimeError if the skill saves checkpoints by itself.
        """
        claim(self.checkpoint, "loops")
        if name in self._names:
            raise ValueError(
                f"this task has a resumable loop {name!r} already: give each a name of its own"
                " (ctx.resumable(items, name='…'); an inner loop's says which item of the outer one it is for)"
            )
        self._names.add(name)

    async def record(self, name: str) -> dict[str, Any]:
        """Return what a former attempt has left of a loop, empty for nothing."""
        if self._records is None:
            self._records = {}
            if (found := await self.desk.load()) is not None:
                content = self._read(found.state)
                if content is None:
                    await self.desk.reject("it was not saved by a resumable loop")
                else:
                    self._records = content
        return as_object(self._records.get(name))

    def noted(self, name: str, record: dict[str, Any]) -> State:
        """Record how far a loop is, and return the state of all loops."""
        assert self._records is not None  # noqa: S101 - it has begun
        self._records[name] = record
        return written({_MARK: self._records})

    @staticmethod
    def _read(state: State) -> dict[str, Any] | None:
        try:
            records = as_object(state.read()).get(_MARK)
        except StateMismatchError:
            return None
        return records if is_dict(records) else None


class Resumable(Generic[_T]):
    """The items of a loop, without those that a former attempt has done. Made by ``ctx.resumable``.

    ``state`` is what the loop works on, as it was after the last item that counts as done: after each one it is saved
    with the loop's position. ``done`` is how many items are.
    """

    def __init__(self, items: Iterable[_T], loops: Loops, name: str, state: Any) -> None:
        loops.add(name)
        self.state: Any = state
        self.done: int = 0
        self._kind: type = type(state)
        self._items = items
        self._of = len(items) if isinstance(items, Sized) else None
        self._loops = loops
        self._name = name

    def __iter__(self) -> Iterator[_T]:
        """Iterate in a plain ``def`` skill. Raises `TaskCancelledError` between items when the task should stop."""
        if is_on_loop():
            raise RuntimeError("in an async def, write: async for item in ctx.resumable(items)")
        return self._iterate()

    def _iterate(self) -> Iterator[_T]:
        desk = self._loops.desk
        desk.in_loop(self._begin)
        for item in itertools.islice(self._items, self.done, None):
            self._loops.check()
            yield item
            if (state := self._advanced()) is not None:
                self._save_here(state)

    def _save_here(self, state: State) -> None:
        self._loops.desk.in_loop(lambda: self._loops.desk.save(state, ()))

    async def __aiter__(self) -> AsyncIterator[_T]:
        """Iterate in an ``async def`` skill."""
        await self._begin()
        for item in itertools.islice(self._items, self.done, None):
            self._loops.check()
            yield item
            if (state := self._advanced()) is not None:
                await self._loops.desk.begin(state, ())

    async def _begin(self) -> None:
        record = await self._loops.record(self._name)
        if not record:
            return
        done, of = record.get("done"), record.get("of")
        try:
            if not isinstance(done, int) or of != self._of:
                raise StateMismatchError(f"it is of a loop over {of} items, and there are {self._of} now")
            self.state = converted(record.get("state"), self._kind)
        except StateMismatchError as error:
            await self._loops.desk.reject(f"loop {self._name!r}: {error}")
            return
        self.done = done

    def _advanced(self) -> State | None:
        """Count an item as done; return the state if it is to be saved at once."""
        self.done += 1
        content = plain(self.state)
        check_restorable(content, self.state, self._kind)
        record = {"done": self.done, "of": self._of, "state": content}
        state = self._loops.noted(self._name, record)
        if self._loops.desk.is_due():
            return state
        self._loops.desk.defer(state)
        return None
