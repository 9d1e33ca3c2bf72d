"""RXON over HTTP/1.1, on the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final, NamedTuple

from avtomatika_worker.errors import CallTimedOutError, ConnectionFailedError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.transport.budget import Budget
from avtomatika_worker.transport.connection import IDLE_TIMEOUT, SMALL, Connection
from avtomatika_worker.transport.decoding import Decoder
from avtomatika_worker.transport.parsing import too_long
from avtomatika_worker.transport.pool import Pool
from avtomatika_worker.transport.route import Route, find_route, write_headers, write_request
from avtomatika_worker.transport.tls import TlsFiles

_CONNECT_TIMEOUT: Final = 10.0
DEFAULT_MAX_ANSWER: Final = 8 * 2**20
_PIECE: Final = 256 * 2**10
_LONG_AT_ONCE: Final = 2
"""How many of the longest answers may be in memory at the same time."""
_REPEATABLE: Final = frozenset({"GET", "HEAD"})


class _Written(NamedTuple):
    """A request without a body as it goes out, and what it was made from."""

    route: Route
    request: Request
    headers: Mapping[str, str]
    message: bytes

    def __repr__(self) -> str:  # the rest holds the token
        return f"_Written(request={self.request!r})"


class HttpTransport:
    """A pool of connections to one orchestrator.

    Answers have at most ``max_answer`` bytes, decompressed; those being read hold at most twice that in total, and
    further ones wait. May be used from several event loops at once. Redirects are not followed: the token must not go
    elsewhere. The environment's proxy is used (`proxies`).

    ``on_dropped`` is called, on the event loop of the calls, with the seconds that a connection had been idle when the
    other side closed it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        user_agent: str,
        tls: TlsFiles | None = None,
        max_answer: int = DEFAULT_MAX_ANSWER,
        connect_timeout: float = _CONNECT_TIMEOUT,
        idle_timeout: float = IDLE_TIMEOUT,
        on_dropped: Callable[[float], None] = lambda _rested: None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._user_agent = user_agent
        self._tls = tls or TlsFiles()
        self._max_answer = max_answer
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._on_dropped = on_dropped
        self._budget = Budget(_LONG_AT_ONCE * max_answer)
        self._lock = threading.Lock()
        self._route: Route | None = None
        # Replaced, never changed: every call reads it without the lock.
        self._pools: Mapping[asyncio.AbstractEventLoop, Pool] = {}
        self._headers: tuple[Mapping[str, str] | None, bytes] = (None, b"")
        self._poll: _Written | None = None

    def open(self) -> None:
        """Prepare to connect. Raises OSError if a TLS file cannot be read, `ConfigError` for other unusable settings.

        Another call reads the TLS files again, for new connections; calls in flight finish on the ones they have.
        """
        route = find_route(self._base_url, self._user_agent, self._tls)
        with self._lock:
            self._route = route
            pools = list(self._pools.values())
        for pool in pools:
            with contextlib.suppress(RuntimeError):  # its loop has just ended
                pool.loop.call_soon_threadsafe(pool.use, route)

    async def send(self, request: Request, headers: Mapping[str, str], timeout: float) -> Response:
        """Send a request and return the answer, whatever its status. ``timeout`` is in seconds, for the whole call.

        Raises `TransportError`. A cancelled call may have been processed; its connection is closed.
        """
        pool = self._pool()
        until = pool.loop.time() + timeout
        message = self._message(pool.route, request, headers)
        connection = pool.take() or await self._connect(pool, until, timeout)
        while True:
            try:
                complete = await connection.exchange(message, until, timeout, head=request.method == "HEAD")
                answer = connection.answer
                plain = complete and not (answer.encoding and answer.size)
                body = answer.body() if plain else await self._body(connection, complete, until)
                response = Response(answer.status, answer.headers(), body)
            except ConnectionFailedError:
                connection.abort()
                # A signed message is processed once, and refused from then on (RXON.md, "Signing"): its author has to
                # know that it may have arrived. And unless the connection was idle, its end is a break: the
                # orchestrator may have lost the worker (Behaviour 4).
                if request.method not in _REPEATABLE or not connection.was_stale():
                    raise
            except BaseException:
                connection.abort()
                raise
            else:
                pool.give_back(connection)
                return response
            connection = await self._connect(pool, until, timeout)

    async def close(self) -> None:
        """Close the connections. Calls in flight fail."""
        with self._lock:
            self._route = None
            pools = list(self._pools.values())
        for pool in pools:
            if pool.loop is asyncio.get_running_loop():
                await pool.close()
            else:
                with contextlib.suppress(RuntimeError):  # its loop has ended, and with it its connections
                    pool.loop.call_soon_threadsafe(pool.abort)

    # ----------------------------------------------------------------------------------------------------- a call

    def _pool(self) -> Pool:
        """Return the pool of the running loop. Raises `ConnectionFailedError` when the transport is not open."""
        route = self._route
        if route is None:
            raise ConnectionFailedError("the transport is not open", maybe_processed=False)
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = Pool(route, self._max_answer, self._idle_timeout, self._forget, self._on_dropped)
            with self._lock:
                self._pools = {**self._pools, loop: pool}
        elif pool.route is not route:
            pool.use(route)
        return pool

    def _forget(self, pool: Pool) -> None:
        with self._lock:
            self._pools = {loop: each for loop, each in self._pools.items() if each is not pool}

    def _message(self, route: Route, request: Request, headers: Mapping[str, str]) -> bytes:
        """Return a request as it goes out.

        Headers and polls are usually the same objects as in the last call, never modified: their bytes are reused.
        """
        poll = self._poll
        if poll is not None and request is poll.request and headers is poll.headers and route is poll.route:
            return poll.message
        last, lines = self._headers
        if headers is not last:
            lines = write_headers(headers)
            self._headers = headers, lines
        message = write_request(route, request, lines)
        if request.body is None:
            self._poll = _Written(route, request, headers, message)
        return message

    async def _connect(self, pool: Pool, until: float, timeout: float) -> Connection:
        try:
            return await pool.connect(min(self._connect_timeout, until - pool.loop.time()))
        except ConnectionFailedError:
            if pool.loop.time() >= until:
                raise CallTimedOutError(f"no answer within {timeout:g} s") from None
            raise

    # ------------------------------------------------------------------------------------------------ long answers

    async def _body(self, connection: Connection, complete: bool, until: float) -> bytes:
        """Return a body that is compressed or long. If it is not ``complete``, the rest is still to be read."""
        answer = connection.answer
        if complete:
            decoder = Decoder(answer.encoding, answer.body())
            pieces = [decoder.read(SMALL), decoder.read(1)]
            if not pieces[-1]:
                return pieces[0]
            async with self._room(self._max_answer, until):
                return await self._decoded(decoder, pieces)
        both = self._max_answer if answer.encoding else 0
        async with self._room((answer.length or self._max_answer) + both, until):
            await connection.read_on(until)
            if not answer.encoding:
                return answer.body()
            return await self._decoded(Decoder(answer.encoding, answer.body()), [])

    async def _decoded(self, decoder: Decoder, pieces: list[bytes]) -> bytes:
        """Read the rest, letting other tasks run in between. Raises `AnswerTooLongError`."""
        left = self._max_answer - sum(map(len, pieces))
        while left >= 0 and (piece := decoder.read(min(_PIECE, left + 1))):
            pieces.append(piece)
            left -= len(piece)
            await asyncio.sleep(0)
        if left < 0:
            raise too_long(self._max_answer)
        return b"".join(pieces)

    @contextlib.asynccontextmanager
    async def _room(self, size: int, until: float) -> AsyncGenerator[None]:
        """Reserve memory for a long answer. Raises `CallTimedOutError` if there is none in time."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(until):
                    await stack.enter_async_context(self._budget.reserved(size))
            except TimeoutError:
                raise CallTimedOutError("no room in memory for a long answer: others are being read") from None
            yield
