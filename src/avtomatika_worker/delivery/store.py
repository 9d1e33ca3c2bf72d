"""Keeps deliveries safe: on disk if possible, otherwise in memory with an error in the log."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Final

import msgspec

from avtomatika_worker.delivery.sqlite_store import WRITE_TIMEOUT, Kind, Message, SqliteStore
from avtomatika_worker.errors import ConfigError, StoreError
from avtomatika_worker.protocol.messages import Event, TaskResult
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.outbox")

_ENCODE_ERRORS: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)

REMIND_EVERY: Final = 60.0
"""Seconds between two error lines about a disk that keeps failing."""


async def _nothing(_key: str) -> None:
    """Remove no checkpoint."""


class Store:
    """The store as the outbox sees it. Without one (``WORKER_RESULT_DURABILITY=off``) everything is in memory only.

    Used from both loops.
    """

    def __init__(
        self,
        store: SqliteStore | None,
        world: World = REAL,
        *,
        remove_checkpoint: Callable[[str], Awaitable[None]] = _nothing,
    ) -> None:
        """``remove_checkpoint`` removes what is kept for a task's next attempt, once none will follow."""
        self.remove_checkpoint: Callable[[str], Awaitable[None]] = remove_checkpoint
        self._monotonic = world.monotonic
        self._store = store
        self._hangs = False
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._reminded = 0.0

    @property
    def on(self) -> bool:
        """Whether there is a disk to keep things on."""
        return self._store is not None

    def open(self, *, required: bool) -> list[tuple[int, Message]]:
        """Return the messages that an earlier run left, with their rows.

        Raises `ConfigError` if another process has the file, or if there is no place for it and one is ``required``;
        otherwise that is logged as an error, and results are kept in memory.
        """
        if self._store is None:
            return []
        try:
            return self._store.open()
        except StoreError as error:
            if required:
                raise ConfigError([f"WORKER_STATE_DIR: {error}"]) from error
            self._store = None
            _log.error(
                "%s: a crash loses results that could not be delivered yet (set WORKER_STATE_DIR to a writable"
                " directory, or WORKER_RESULT_DURABILITY=off if that is intended)",
                error,
                extra={"action": "store_unusable"},
            )
            return []

    async def keep(self, url: str, message: TaskResult | Event, created: float) -> int | None:
        """Store a message and return its row, or None if that is not possible now. ``created`` is in Unix seconds.

        A disk that does not answer is waited for once, for `WRITE_TIMEOUT`; then everything is in memory only until
        it answers again.
        """
        if self._store is None or self._hangs:
            return None
        try:
            put = self._store.put(encode(url, message, created))
        except _ENCODE_ERRORS:
            return None  # it cannot be sent either: the attempt finds that out, and replaces it by a failure
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                row = await asyncio.wrap_future(put)
        except StoreError as error:
            self._failed(error)
            return None
        except TimeoutError:
            self._give_up(put)
            self._set_hangs(hangs=True)
            self._failed(StoreError(f"{self._store.path} has not been written for {WRITE_TIMEOUT:.0f} s"))
            self._store.probe().add_done_callback(self._answers_again)
            return None
        except BaseException:
            self._give_up(put)
            raise
        self._recovered()
        return row

    def keep_at_end(self, messages: Sequence[Message], until: float) -> list[bool]:
        """Store messages without the event loop, and wait until all are safe or it is ``until``, monotonic seconds.

        Returns which are safe. For use at the very end.
        """
        if self._store is None:
            return [False] * len(messages)
        puts = [self._store.put(each) for each in messages]
        return [_is_stored(put, until - self._monotonic()) for put in puts]

    def forget(self, row: int | None) -> None:
        """Remove a message that is settled."""
        if self._store is not None and row is not None:
            self._store.forget(row)

    def check(self) -> bool:
        """Return whether what was stored is still on disk."""
        return self._store is not None and self._store.check()

    def _give_up(self, put: Future[int]) -> None:
        """Ensure that no message stays stored without anything knowing about it."""
        if not put.cancel():
            put.add_done_callback(self._forget_late)

    def _forget_late(self, put: Future[int]) -> None:
        if put.exception() is None:
            self.forget(put.result())

    def _answers_again(self, probe: Future[bool]) -> None:
        """Record, on the store's thread, that the disk has answered."""
        self._set_hangs(hangs=False)
        if probe.result():
            self._recovered()

    def _set_hangs(self, *, hangs: bool) -> None:
        with self._lock:
            self._hangs = hangs

    def close(self) -> None:
        """Release the file."""
        if self._store is not None:
            self._store.close()

    def _failed(self, error: StoreError) -> None:
        now = self._monotonic()
        with self._lock:
            if self._failing_since is None:
                self._failing_since = now
            elif now - self._reminded < REMIND_EVERY:
                return
            self._reminded = now
        _log.error(
            "%s; undelivered results are in memory only: a crash would lose them",
            error,
            extra={"action": "store_failed"},
        )

    def _recovered(self) -> None:
        with self._lock:
            since, self._failing_since = self._failing_since, None
        if since is not None:
            seconds = self._monotonic() - since
            _log.warning("results are kept on disk again after %.0f s", seconds, extra={"action": "store_recovered"})


def _is_stored(put: Future[int], timeout: float) -> bool:
    try:
        put.result(max(0.0, timeout))
    except (StoreError, TimeoutError):
        return False
    return True


def encode(url: str, message: TaskResult | Event, created: float) -> Message:
    """Return a message in the form in which it is stored. Raises what msgspec raises for values it cannot write."""
    if isinstance(message, TaskResult):
        kind, task_id = Kind.RESULT, message.task_id
    else:
        kind, task_id = Kind.EVENT, message.origin_task_id or ""
    return Message(url, kind, task_id, msgspec.msgpack.encode(message), created)


def size_of(message: TaskResult | Event) -> int:
    """Return how many bytes a message takes; 0 for one that cannot be encoded, and so cannot be sent either."""
    try:
        return len(msgspec.msgpack.encode(message))
    except _ENCODE_ERRORS:
        return 0


def decode(message: Message) -> TaskResult | Event:
    """Return the message that was stored. Raises `StoreError` when its bytes are something else."""
    try:
        if message.kind is Kind.RESULT:
            return msgspec.msgpack.decode(message.body, type=TaskResult)
        return msgspec.msgpack.decode(message.body, type=Event)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the stored {message.kind} of task {message.task_id} cannot be read: {error}") from error
