"""How many bytes of long answers may be in memory at the same time. Who finds none left waits in line."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator


class Budget:
    """``total`` bytes, reserved from any event loop; in order, so that a large wish is not passed by small ones."""

    def __init__(self, total: int) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._left = total
        self._line: deque[_Wish] = deque()

    @property
    def left(self) -> int:
        """Bytes that are not reserved."""
        return self._left

    @contextlib.asynccontextmanager
    async def reserved(self, size: int) -> AsyncGenerator[None]:
        """Hold ``size`` bytes, or all there are, whichever is less; wait until they are free."""
        wish = _Wish(min(size, self._total))
        with self._lock:
            self._line.append(wish)
            self._grant()
        try:
            await wish.granted
            yield
        finally:
            with self._lock:
                if wish.has_bytes:
                    self._left += wish.size
                else:
                    self._line.remove(wish)
                self._grant()

    def _grant(self) -> None:
        while self._line and self._line[0].size <= self._left:
            wish = self._line.popleft()
            self._left -= wish.size
            wish.grant()


class _Wish:
    """A place in the line; it is waited for in the loop that made it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.has_bytes = False
        self._loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[None] = self._loop.create_future()

    def grant(self) -> None:
        """Let it go on. Called in any thread."""
        self.has_bytes = True
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        if not self.granted.done():
            self.granted.set_result(None)
