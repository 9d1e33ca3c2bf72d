"""The worker's end of the socket pair, on the main loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from avtomatika_worker._forks import close_in_forked_children
from avtomatika_worker.execution.processes.wire import HEAD, Message, decode, read_head

_log: Final = logging.getLogger("avtomatika_worker.processes")

STALLED_AFTER: Final = 10.0
"""Seconds without data after which an incomplete message counts as stalled: messages are written in one go."""


class ParentChannel(asyncio.Protocol):
    """Calls ``take`` with every message, and ``on_lost`` when the connection ends.

    Invalid data closes the connection and calls ``on_garbled`` with the problem. The first message identifies the
    process at the other end; messages from any other process are dropped, and ``on_stranger`` is called with its id.
    """

    def __init__(
        self,
        take: Callable[[Message], None],
        on_lost: Callable[[], None],
        *,
        on_garbled: Callable[[str], None] | None = None,
        on_stranger: Callable[[int], None] | None = None,
        stalled_after: float = STALLED_AFTER,
    ) -> None:
        self._take = take
        self._on_lost = on_lost
        self._on_garbled = on_garbled
        self._on_stranger = on_stranger
        self._take_back: Callable[[], None] = lambda: None
        self.pid: int = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._stalled_after = stalled_after
        self._stalling: asyncio.TimerHandle | None = None
        self._lost = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self._lost.done() or self._transport is None or self._transport.is_closing()

    def send(self, message: bytes) -> None:
        """Send an encoded message."""
        if self._transport is not None:
            self._transport.write(message)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self, timeout: float) -> None:
        """Wait until the connection has ended, for at most ``timeout`` seconds."""
        await asyncio.wait({self._lost}, timeout=timeout)

    # -------------------------------------------------------------------------------------------------- asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101 - uvloop's is not one
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None:  # in a forked child, it would keep the process from noticing that the worker is gone
            self._take_back = close_in_forked_children(sock.fileno())

    def data_received(self, data: bytes) -> None:
        """Take bytes, and handle every message that they complete."""
        self._buffer += data
        start, end = 0, len(self._buffer)
        try:
            while end - start >= HEAD.size:
                pid, size = read_head(self._buffer, start)
                after = start + HEAD.size + size
                if after > end:
                    break
                body = bytes(memoryview(self._buffer)[start + HEAD.size : after])
                start = after
                self._take_from(pid, decode(body))
        except Exception as error:  # noqa: BLE001 - whatever a broken process writes must end only that process
            _log.error(
                "a skill process sent an invalid message", exc_info=True, extra={"action": "skill_process_garbled"}
            )
            self._garbled(f"{type(error).__name__}: {error}")
        finally:
            del self._buffer[:start]
            self._watch_rest()

    def _garbled(self, problem: str) -> None:
        self.close()
        if self._on_garbled is not None:
            self._on_garbled(problem)

    def _watch_rest(self) -> None:
        """Start or stop the timer that ends a process whose message stays incomplete."""
        if self._stalling is not None:
            self._stalling.cancel()
            self._stalling = None
        if self._buffer and not self.closed:
            self._stalling = asyncio.get_running_loop().call_later(self._stalled_after, self._stalled)

    def _stalled(self) -> None:
        have = len(self._buffer)
        _log.error(
            "a skill process sent an incomplete message: %d bytes, and nothing more for %.0f s",
            have,
            self._stalled_after,
            extra={"action": "skill_process_garbled"},
        )
        self._garbled(f"an incomplete message of {have} bytes")

    def _take_from(self, pid: int, message: Message) -> None:
        self.pid = self.pid or pid
        if pid == self.pid:
            self._take(message)
        elif self._on_stranger is not None:
            self._on_stranger(pid)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        del exc
        self._take_back()
        if self._stalling is not None:
            self._stalling.cancel()
        if not self._lost.done():
            self._lost.set_result(None)
        self._on_lost()
