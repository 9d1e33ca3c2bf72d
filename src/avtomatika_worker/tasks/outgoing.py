"""The queue of what a task has to send. Waiting chunks are combined: the last one in line absorbs those that follow."""

from __future__ import annotations

import base64
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker.protocol.messages import Event
from avtomatika_worker.skills.chunks import ChunkKind

EVENT_BYTES: Final = 256 * 2**10
"""Maximum bytes of chunks per event; a single larger chunk gets its own."""

WAITING_BYTES: Final = 4 * EVENT_BYTES
"""Maximum bytes of a task's chunks that may wait ..."""

WAITING_CHUNKS: Final = 100_000
"""... and their maximum number; a generator that is faster waits for room."""

_JOINED: Final[dict[ChunkKind, Callable[[list[Any]], Any]]] = {
    ChunkKind.TEXT: "".join,
    ChunkKind.BYTES: lambda parts: base64.b64encode(b"".join(parts)).decode(),
    ChunkKind.ITEMS: list,
}


@dataclass(slots=True, eq=False)
class Chunks:
    """Chunks that are sent together. ``hurried``: an event is waiting behind them, so they do not wait for more."""

    kind: ChunkKind
    parts: list[Any] = field(default_factory=list[Any])
    size: int = 0
    hurried: bool = False

    @property
    def data(self) -> Any:
        """All of them combined, in the form that an event carries."""
        return _JOINED[self.kind](self.parts)


class Outgoing:
    """The queue of a task's events and chunks. Used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room: threading.Event | None = None
        self._line: deque[Event | Chunks] = deque()
        self._bytes = 0
        self._chunks = 0
        self._events = 0

    @property
    def events(self) -> int:
        """The number of waiting events."""
        return self._events

    @property
    def has_chunks(self) -> bool:
        """Whether chunks are waiting."""
        return self._chunks > 0

    @property
    def first(self) -> Event | Chunks | None:
        """The next item to send."""
        with self._lock:
            return self._line[0] if self._line else None

    @property
    def has_room(self) -> bool:
        """Whether there is room for another chunk."""
        return self._bytes < WAITING_BYTES and self._chunks < WAITING_CHUNKS

    def add_event(self, event: Event) -> None:
        """Append an event to the queue."""
        with self._lock:
            for each in self._line:
                if isinstance(each, Chunks):
                    each.hurried = True
            self._line.append(event)
            self._events += 1

    def add_chunk(self, kind: ChunkKind, data: Any, size: int) -> bool:
        """Append a chunk to the queue; return whether there is room for another."""
        with self._lock:
            last = self._line[-1] if self._line else None
            if isinstance(last, Chunks) and last.size + size <= EVENT_BYTES:
                last.parts.append(data)
                last.size += size
            else:
                self._line.append(Chunks(kind, [data], size))
            self._bytes += size
            self._chunks += 1
            return self.has_room

    def take(self) -> Event | Chunks | None:
        """Remove and return the first item, or None."""
        with self._lock:
            if not self._line:
                return None
            first = self._line.popleft()
            if isinstance(first, Chunks):
                self._bytes -= first.size
                self._chunks -= len(first.parts)
                if self._room is not None:
                    self._room.set()
            else:
                self._events -= 1
            return first

    def wait_for_room(self, timeout: float) -> bool:
        """Wait, in a thread, at most ``timeout`` seconds for room for another chunk; return whether there is."""
        with self._lock:
            if self.has_room:
                return True
            room = self._room = self._room or threading.Event()
            room.clear()
        room.wait(timeout)
        return self.has_room
