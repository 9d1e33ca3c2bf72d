"""The only objects made for sharing between threads.

`Watch` is for snapshots, `Event` for switches, `CallQueue` for commands, `Table` for what there is now. The rule: the
main loop publishes frozen snapshots that other threads read, and other threads send it commands through one queue.
docs/explanation/threads.md lists everything that several threads use; a test compares the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)
_Ts = TypeVarTuple("_Ts")


class Event:
    """A gate that any thread may open or close, and that can be awaited in any event loop."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._lock = threading.Lock()
        self._open = is_open
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    @property
    def is_open(self) -> bool:
        """Whether waiters pass immediately."""
        return self._open

    def open(self) -> None:
        """Let all waiters pass, now and later."""
        self.set(is_open=True)

    def close(self) -> None:
        """Make waiters wait from now on."""
        self.set(is_open=False)

    def set(self, *, is_open: bool) -> None:
        """Open or close."""
        waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        with self._lock:
            self._open = is_open
            if is_open:
                waiting, self._waiting = self._waiting, waiting
        _wake_all(waiting)

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the gate is open, for at most ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        while True:
            with self._lock:
                left = None if until is None else until - loop.time()
                if self._open or (left is not None and left <= 0):
                    return
                entry = (loop, loop.create_future())
                self._waiting.add(entry)
            try:
                await asyncio.wait({entry[1]}, timeout=left)
            finally:
                with self._lock:
                    self._waiting.discard(entry)


class Watch(Generic[_T]):
    """The newest value of something. One thread publishes it, any thread reads it or waits for the next one."""

    def __init__(self, value: _T) -> None:
        self._lock = threading.Lock()
        self._value = value
        self._version = 0
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    @property
    def value(self) -> _T:
        """The newest value."""
        return self._value

    @property
    def version(self) -> int:
        """The number of publications so far."""
        return self._version

    def publish(self, value: _T) -> None:
        """Set a new value and wake the waiters."""
        with self._lock:
            self._value = value
            waiting = self._next_version()
        _wake_all(waiting)

    def touch(self) -> None:
        """Wake the waiters without changing the value."""
        with self._lock:  # or a value published by another thread just now could be undone
            waiting = self._next_version()
        _wake_all(waiting)

    def _next_version(self) -> set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]:
        """Count a publication and return the waiters to wake. Called with the lock held."""
        self._version += 1
        waiting, self._waiting = self._waiting, set()
        return waiting

    async def changed(self, seen: int, timeout: float | None) -> int:
        """Wait until the version differs from ``seen``, for at most ``timeout`` seconds; return the version."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._version != seen:
                return self._version
            entry = (loop, loop.create_future())
            self._waiting.add(entry)
        try:
            await asyncio.wait({entry[1]}, timeout=timeout)
        finally:
            with self._lock:
                self._waiting.discard(entry)
        return self._version


class CallQueue:
    """Passes calls from any thread to one event loop, which makes them in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def put(self, call: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Have the loop call ``call(*args)``. Never blocks; once the loop is closed, the call is dropped."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


class Table(Generic[_K, _T]):
    """Values by key, in the order of the keys' first entries. Any thread may change it, and copy its values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[_K, _T] = {}

    def put(self, key: _K, value: _T) -> None:
        """Enter a value, or another one in its place."""
        with self._lock:
            self._entries[key] = value

    def remove(self, key: _K) -> None:
        """Take an entry out, if it is there."""
        with self._lock:
            self._entries.pop(key, None)

    def values(self) -> list[_T]:
        """Return the values."""
        with self._lock:
            return list(self._entries.values())


def _wake_all(waiting: Iterable[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    for loop, future in waiting:
        CallQueue(loop).put(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
