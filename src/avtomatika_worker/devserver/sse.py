"""Server-sent events."""

from __future__ import annotations

from typing import Any, Final, Self

import orjson
from aiohttp import web

_KEEP_ALIVE: Final = 15.0


class EventStream:
    """An answer that goes on: ``event``, ``id`` and ``data`` (JSON), and a comment now and then against time-outs."""

    keep_alive_after: Final = _KEEP_ALIVE

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    @classmethod
    async def open(cls, request: web.Request) -> Self:
        """Begin the answer; the handler's return ends it."""
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        await response.prepare(request)
        return cls(response)

    async def send(self, event: str, data: dict[str, Any], number: int | None = None) -> None:
        """Send an event. Raises ConnectionError when the client is gone."""
        identity = b"" if number is None else b"id: %d\n" % number
        body = orjson.dumps(data, default=str)
        await self.response.write(b"event: %b\n%bdata: %b\n\n" % (event.encode(), identity, body))

    async def ask_for_return(self, seconds: float) -> None:
        """Have the client come back so soon after a break; browsers wait for some seconds of their own otherwise."""
        await self.response.write(b"retry: %d\n\n" % int(seconds * 1000))

    async def keep_alive(self) -> None:
        """Send a comment."""
        await self.response.write(b": still here\n\n")
