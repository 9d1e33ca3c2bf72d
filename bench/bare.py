"""The least that a worker could do: poll, decode, run a coroutine, sign, deliver. No worker around it.

What it leaves out is what a worker is for: no registration, no heartbeats, no validation, no cancellation, no retries,
no deadlines, no log. Run as ``python -m bench.bare URL SLOTS``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import time
import uuid
from typing import Any, Final
from urllib.parse import urlsplit

import httptools
import msgspec
import orjson

from bench.stub import TOKEN

_WORKER_ID: Final = "bench-worker"
_HEADERS: Final = f"Host: stub\r\nX-Worker-Token: {TOKEN}\r\nX-Worker-ID: {_WORKER_ID}\r\nX-RXON-Version: 1.0b17\r\n"
_POLL: Final = (
    f"GET /_worker/workers/{_WORKER_ID}/tasks/next?timeout=30&available_skills=echo&hot_skills= HTTP/1.1\r\n"
    f"{_HEADERS}\r\n"
).encode()
_RESULT: Final = f"POST /_worker/tasks/result HTTP/1.1\r\n{_HEADERS}Content-Type: application/json\r\n".encode()


class Task(msgspec.Struct):
    """What came."""

    job_id: str
    task_id: str
    type: str
    params: dict[str, Any]


_decoder: Final = msgspec.json.Decoder(Task)


async def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return params


class Connection(asyncio.Protocol):
    """One call after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._pieces: list[bytes] = []

    async def call(self, message: bytes) -> tuple[int, bytes]:
        """Send a request; return the answer's status and body."""
        self._answer = self._loop.create_future()
        self._pieces.clear()
        assert self._transport is not None
        self._transport.write(message)
        status = await self._answer
        return status, b"".join(self._pieces)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())


async def handle(connection: Connection, body: bytes, keyed: hmac.HMAC) -> None:
    """Run a task and deliver its result."""
    task = _decoder.decode(body)
    message = {
        "job_id": task.job_id,
        "task_id": task.task_id,
        "worker_id": _WORKER_ID,
        "origin_worker_id": _WORKER_ID,
        "status": "success",
        "data": await echo(task.params),
        "timestamp": int(time.time()),
        "nonce": uuid.uuid4().hex,
    }
    canonical = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
    signature = keyed.copy()
    signature.update(canonical)
    security = f',"security":{{"signature":"{signature.hexdigest()}","signer_id":"{_WORKER_ID}"}}}}'
    signed = canonical[:-1] + security.encode()
    _, answer = await connection.call(b"%bContent-Length: %d\r\n\r\n%b" % (_RESULT, len(signed), signed))
    msgspec.json.decode(answer)


async def slot(host: str, port: int, keyed: hmac.HMAC) -> None:
    """Take one task after the other, each in an asyncio task of its own."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, port)
    while True:
        status, body = await connection.call(_POLL)
        if status == 200:
            await loop.create_task(handle(connection, body, keyed))


async def run_slots(url: str, slots: int) -> None:
    """Run so many slots side by side."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    keyed = hmac.new(TOKEN.encode(), digestmod=hashlib.sha256)
    async with asyncio.TaskGroup() as group:
        for _ in range(slots):
            group.create_task(slot(place.hostname, place.port, keyed))


if __name__ == "__main__":
    import uvloop

    uvloop.run(run_slots(sys.argv[1], int(sys.argv[2])))
