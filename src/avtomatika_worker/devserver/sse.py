"""Server-sent events."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import orjson
from aiohttp import web

_KEEP_ALIVE: Final = 15.0


class EventStream:
    """An open-ended answer: ``event``, ``id`` and ``data`` (JSON), and comments now and then to prevent timeouts."""

    keep_alive_after: Final = _KEEP_ALIVE

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    @classmethod
    async def serve(cls, request: web.Request, write: Callable[[Self], Awaitable[None]]) -> web.StreamResponse:
        """Answer with what ``write`` sends, until it returns or the client is gone: pages are closed at any moment."""
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            await write(cls(response))
        return response

    async def send(self, event: str, data: dict[str, Any], number: int | None = None) -> None:
        """Send an event. Raises ConnectionError if the client is gone."""
        identity = b"" if number is None else b"id: %d\n" % number
        body = orjson.dumps(data, default=str)
        await self.response.write(b"event: %b\n%bdata: %b\n\n" % (event.encode(), identity, body))

    async def ask_for_return(self, seconds: float) -> None:
        """Set how soon the client reconnects after a break; by default browsers wait a few seconds."""
        await self.response.write(b"retry: %d\n\n" % int(seconds * 1000))

    async def keep_alive(self) -> None:
        """Send a comment."""
        await self.response.write(b": still here\n\n")
