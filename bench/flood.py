"""A raw client that shows how much the stub serves: pipelined requests over a few connections, answers counted only.

Prints requests per second. Run as ``python -m bench.flood PORT SECONDS CONNECTIONS DEPTH``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final, cast

_REQUEST: Final = (
    b"GET /_worker/workers/raw/tasks/next?timeout=30&available_skills=echo&hot_skills= HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\nX-Worker-Token: bench-token\r\nX-Worker-ID: raw\r\nX-RXON-Version: 1.0b17\r\n\r\n"
)
_RESULT: Final = b'{"task_id":"00000000-0000-4000-8000-000000000000","status":"success","data":{}}'
_POST: Final = (
    b"POST /_worker/tasks/result HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Worker-Token: bench-token\r\n"
    b"X-Worker-ID: raw\r\nX-RXON-Version: 1.0b17\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
) % (len(_RESULT), _RESULT)


class Client(asyncio.Protocol):
    """Keeps ``depth`` requests in flight, polls and results in turn."""

    def __init__(self, depth: int) -> None:
        self._pairs = max(1, depth // 2) if depth > 1 else 0
        self._depth = depth
        self._transport: asyncio.Transport | None = None
        self._open = 0
        self._poll = True
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first requests."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the answers, and go on when all have come."""
        count = data.count(b"HTTP/1.1 200")
        self.answers += count
        self._open -= count
        if self._open <= 0:
            self._send()

    def _send(self) -> None:
        if self._transport is None:
            return
        self._open = self._depth
        if self._pairs:
            self._open = 2 * self._pairs
            self._transport.write((_REQUEST + _POST) * self._pairs)
        else:
            self._transport.write(_REQUEST if self._poll else _POST)
            self._poll = not self._poll


async def flood(port: int, seconds: float, connections: int, depth: int) -> float:
    """Return the requests per second that were answered."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(depth), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(0.3)
    before, start = sum(each.answers for each in clients), time.perf_counter()
    await asyncio.sleep(seconds)
    return (sum(each.answers for each in clients) - before) / (time.perf_counter() - start)


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(flood(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
