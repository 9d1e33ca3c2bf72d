"""What threads share.

`Watch` is for snapshots, `Event` for switches, `CallQueue` for commands, `Queue` for values in order, `Multiset` for
counts, `Table` for what there is now. The rule: the main loop publishes frozen snapshots, and other threads read them;
what they want of the main loop they put into one queue. docs/explanation/threads.md lists all that more than one thread
touches; a test compares.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import Final, Generic, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_H = TypeVar("_H", bound=Hashable)
_K = TypeVar("_K", bound=Hashable)
_Ts = TypeVarTuple("_Ts")

MOST_WAITING: Final = 1_000
"""Things that a `Queue` holds at most."""


class Event:
    """An event that any thread may open or close, and any event loop may wait at."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._lock = threading.Lock()
        self._open = is_open
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()

    @property
    def is_open(self) -> bool:
        """Whether waiters pass at once."""
        return self._open

    def open(self) -> None:
        """Let everybody pass, from now on."""
        self.set(is_open=True)

    def close(self) -> None:
        """Let nobody pass any more."""
        self.set(is_open=False)

    def set(self, *, is_open: bool) -> None:
        """Open or close."""
        waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        with self._lock:
            self._open = is_open
            if is_open:
                waiting, self._waiting = self._waiting, waiting
        for loop, future in waiting:
            _wake(loop, future)

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the gate is open, at most ``timeout`` seconds."""
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
    """The newest value of something, published by one thread and read by any; readers can wait for the next one."""

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
        """Counts the publications."""
        return self._version

    def publish(self, value: _T) -> None:
        """Put up a new value and wake who waits."""
        with self._lock:
            self._value = value
            self._version += 1
            waiting, self._waiting = self._waiting, set()
        for loop, future in waiting:
            _wake(loop, future)

    def touch(self) -> None:
        """Wake who waits although the value is the same."""
        self.publish(self._value)

    async def changed(self, seen: int, timeout: float | None) -> int:
        """Wait until the version is no longer ``seen``, at most ``timeout`` seconds; return the version."""
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


class Queue(Generic[_T]):
    """Holds at most `MOST_WAITING` things until one reader, on an event loop, takes them in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_T] = deque()
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, thing: _T) -> bool:
        """Hand something over, from any thread; return false if there is no room."""
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(thing)
            if self._reader is not None:
                loop, arrived = self._reader
                CallQueue(loop).put(arrived.set)
            return True

    async def read(self) -> AsyncGenerator[_T, None]:
        """Yield what arrives, and what has arrived before."""
        arrived = asyncio.Event()
        with self._lock:
            self._reader = asyncio.get_running_loop(), arrived
        try:
            while True:
                arrived.clear()
                while (thing := self._next()) is not None:
                    yield thing
                await arrived.wait()
        finally:
            with self._lock:
                self._reader = None

    def _next(self) -> _T | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None


class CallQueue:
    """Calls that any thread leaves to one event loop, which makes them in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def put(self, call: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Have ``call(*args)`` made over there; once that loop is closed, nobody makes it. Never waits."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


class Multiset(Generic[_H]):
    """Counts values. Any thread may change it, and copy it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[_H] = Counter()

    def add(self, value: _H) -> None:
        """Count one more."""
        with self._lock:
            self._counts[value] += 1

    def remove(self, value: _H) -> None:
        """Count one less; what is counted no more is forgotten."""
        with self._lock:
            self._counts[value] -= 1
            if not self._counts[value]:
                del self._counts[value]

    def distinct(self) -> list[_H]:
        """Return each value that is counted, once."""
        with self._lock:
            return list(self._counts)


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


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def wake() -> None:
        if not future.done():
            future.set_result(None)

    CallQueue(loop).put(wake)
