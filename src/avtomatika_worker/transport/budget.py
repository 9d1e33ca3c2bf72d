"""Limits the bytes of long answers that are in memory at the same time. Further readers wait in line."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator


class Budget:
    """``total`` bytes that any event loop may reserve: first come, first served, so large requests do not starve."""

    def __init__(self, total: int) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._left = total
        self._line: deque[_Request] = deque()

    @property
    def left(self) -> int:
        """The number of bytes that are not reserved."""
        return self._left

    @contextlib.asynccontextmanager
    async def reserved(self, size: int) -> AsyncGenerator[None]:
        """Hold ``size`` bytes, at most ``total``. Waits until they are free."""
        request = _Request(min(size, self._total))
        with self._lock:
            self._line.append(request)
            self._grant()
        try:
            await request.granted
            yield
        finally:
            with self._lock:
                if request.has_bytes:
                    self._left += request.size
                else:
                    self._line.remove(request)
                self._grant()

    def _grant(self) -> None:
        while self._line and self._line[0].size <= self._left:
            request = self._line.popleft()
            self._left -= request.size
            request.grant()


class _Request:
    """A request in the line, awaited in the event loop that made it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.has_bytes = False
        self._loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[None] = self._loop.create_future()

    def grant(self) -> None:
        """Grant the request. May be called from any thread."""
        self.has_bytes = True
        with contextlib.suppress(RuntimeError):  # its loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.granted.done():
            self.granted.set_result(None)
