"""WebSockets for commands: one per worker; a new one closes the old one with 1008."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from avtomatika_worker.devserver.changes import Hub
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.snapshots import JobRecord
from avtomatika_worker.protocol.messages import CANCEL_TASK

_HEARTBEAT: Final = 30.0
_CLOSE_TIME: Final = 1.0
_MAX_MESSAGE: Final = 4 * 2**20

OnMessage = Callable[[web.Request, bytes], None]


@dataclass(eq=False, slots=True)
class _Channel:
    """An open WebSocket and its outgoing messages; a code in the queue closes it."""

    outgoing: asyncio.Queue[tuple[bytes | WSCloseCode, asyncio.Future[None] | None]] = field(
        default_factory=lambda: asyncio.Queue[tuple[bytes | WSCloseCode, asyncio.Future[None] | None]]()
    )

    closing: bool = False

    def close(self, code: WSCloseCode) -> None:
        """Close the WebSocket after the messages already queued."""
        self.closing = True
        self.outgoing.put_nowait((code, None))

    async def write_to(self, websocket: web.WebSocketResponse) -> None:
        """Send messages until the queue says to close."""
        while True:
            item, sent = await self.outgoing.get()
            if isinstance(item, WSCloseCode):
                await websocket.close(code=item)
                return
            try:
                await _send(websocket, item)
            except BaseException:
                self.outgoing.put_nowait((item, sent))  # for `abandon`
                raise
            if sent is not None and not sent.done():
                sent.set_result(None)

    def abandon(self) -> None:
        """Fail the senders still waiting: nothing more is sent."""
        while not self.outgoing.empty():
            _, sent = self.outgoing.get_nowait()
            if sent is not None and not sent.done():
                sent.set_exception(ConnectionResetError("the WebSocket was closed"))


async def _send(websocket: web.WebSocketResponse, data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:  # only an injected fault does this
        await websocket.send_bytes(data)
    else:
        await websocket.send_str(text)


class CommandChannels:
    """Every worker's WebSocket."""

    def __init__(self, orchestrator: Orchestrator, hub: Hub) -> None:
        self._orchestrator = orchestrator
        self._hub = hub
        self._channels: dict[str, _Channel] = {}

    async def serve(
        self,
        request: web.Request,
        headers: Mapping[str, str],
        on_message: OnMessage,
        greeting: bytes | None = None,
        *,
        drop: bool = False,
    ) -> web.StreamResponse:
        """Serve a WebSocket to its end. ``greeting`` is sent first; ``drop`` ends it at once, without a close frame."""
        websocket = web.WebSocketResponse(timeout=_CLOSE_TIME, heartbeat=_HEARTBEAT, max_msg_size=_MAX_MESSAGE)
        websocket.headers.update(headers)
        await websocket.prepare(request)
        if drop:
            if request.transport is not None:
                request.transport.abort()
            return websocket
        worker_id, channel = request.match_info["worker_id"], _Channel()
        if greeting is not None:
            channel.outgoing.put_nowait((greeting, None))
        self._open(worker_id, channel)
        writer = asyncio.create_task(channel.write_to(websocket))  # noqa: TID251 - waited for below, whatever it raises
        try:
            async for message in websocket:
                if message.type is WSMsgType.TEXT:
                    on_message(request, message.data.encode())
                elif message.type is WSMsgType.BINARY:
                    on_message(request, message.data)
            if channel.closing:
                await asyncio.wait([writer], timeout=_CLOSE_TIME)
        finally:
            self._closed(worker_id, channel)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            channel.abandon()
        return websocket

    def _open(self, worker_id: str, channel: _Channel) -> None:
        old = self._channels.get(worker_id)
        if old is not None:
            old.close(WSCloseCode.POLICY_VIOLATION)
        self._channels[worker_id] = channel
        self._orchestrator.connected(worker_id, connected=True)

    def _closed(self, worker_id: str, channel: _Channel) -> None:
        if self._channels.get(worker_id) is channel:
            del self._channels[worker_id]
            self._orchestrator.connected(worker_id, connected=False)

    def is_connected(self, worker_id: str) -> bool:
        """Return whether a worker has a WebSocket open."""
        return worker_id in self._channels

    async def send(self, worker_id: str, command: Mapping[str, Any]) -> None:
        """Send a command. Raises LookupError if the worker has no WebSocket, ConnectionError if it breaks."""
        channel = self._channels.get(worker_id)
        if channel is None:
            raise LookupError(f"worker {worker_id!r} has no WebSocket open")
        sent = asyncio.get_running_loop().create_future()
        channel.outgoing.put_nowait((orjson.dumps(dict(command)), sent))
        await sent

    def order_cancellation(self, job: JobRecord) -> bool:
        """Order the job's worker to cancel it, if that worker accepts real-time commands."""
        worker = self._orchestrator.workers.get(job.worker_id or "")
        channel = self._channels.get(job.worker_id or "")
        if worker is None or channel is None or not worker.websockets:
            return False
        command = {"command": CANCEL_TASK, "task_id": job.task_id, "job_id": job.job_id}
        channel.outgoing.put_nowait((orjson.dumps(command), None))
        return True

    def close(self) -> None:
        """Close every WebSocket: the orchestrator is going away."""
        for channel in self._channels.values():
            channel.close(WSCloseCode.GOING_AWAY)
