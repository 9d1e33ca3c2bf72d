"""RXON over HTTP. The only module that knows the HTTP library, so that it can be replaced."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import Final

from avtomatika_worker._atexit import give_native_threads_time
from avtomatika_worker.errors import (
    AnswerTooLongError,
    CallTimedOutError,
    ConfigError,
    ConnectionFailedError,
    TransportError,
)
from avtomatika_worker.protocol.codec import VERSION_HEADER, Request
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.transport.allocator import lean_allocator
from avtomatika_worker.transport.budget import Budget
from avtomatika_worker.transport.scheduling import threads_that_do_not_preempt
from avtomatika_worker.transport.tls import TlsFiles

with lean_allocator():
    from pyreqwest.client import Client, ClientBuilder
    from pyreqwest.client.types import TlsVersion
    from pyreqwest.exceptions import ConnectTimeoutError, DetailedPyreqwestError, PyreqwestError, RequestTimeoutError
    from pyreqwest.response import Response as StreamedResponse

_WANTED_HEADERS: Final = (VERSION_HEADER.lower(), "date", "retry-after")
_CONNECT_TIMEOUT: Final = 10.0
_KEEPALIVE: Final = timedelta(seconds=30)  # finds a dead peer under a long poll
DEFAULT_MAX_ANSWER: Final = 8 * 2**20
_SMALL: Final = 64 * 2**10
"""Bytes up to which an answer is read without asking whether there is room for it."""
_PIECE: Final = 256 * 2**10
_LONG_AT_ONCE: Final = 2
"""How many of the longest answers may be in memory at the same time."""
_MIN_TLS: Final[TlsVersion] = "TLSv1.2"


class HttpTransport:
    """A pool of connections to one orchestrator.

    Answers are at most ``max_answer`` bytes long, decompressed; those that are being read hold at most twice as much
    together, and further ones wait. May be used from several event loops at once. Redirects are not followed: the token
    must not go elsewhere.
    """

    def __init__(
        self,
        base_url: str,
        *,
        user_agent: str,
        tls: TlsFiles | None = None,
        max_answer: int = DEFAULT_MAX_ANSWER,
        connect_timeout: float = _CONNECT_TIMEOUT,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._user_agent = user_agent
        self._tls = tls or TlsFiles()
        self._max_answer = max_answer
        self._connect_timeout = connect_timeout
        self._budget = Budget(_LONG_AT_ONCE * max_answer)
        self._client: Client | None = None

    def open(self) -> None:
        """Make the client. Raises OSError when a TLS file cannot be read, `ConfigError` when it cannot be used.

        Opened again, it reads the TLS files anew, for new connections; calls in flight end on those that they have.
        """
        give_native_threads_time()
        builder = (
            ClientBuilder()
            .user_agent(self._user_agent)
            .follow_redirects(enable=False)
            .connect_timeout(timedelta(seconds=self._connect_timeout))
            .tcp_keepalive(_KEEPALIVE)
            .min_tls_version(_MIN_TLS)
            .brotli(enable=False)  # each is named in every request, and aiohttp's servers compress with gzip
            .deflate(enable=False)
        )
        try:
            if ca := self._tls.ca_pem():
                builder = builder.add_root_certificate_pem(ca)
            if identity := self._tls.identity_pem():
                builder = builder.identity_pem(identity)
            with threads_that_do_not_preempt():
                self._client = builder.build()
        except (PyreqwestError, ValueError) as error:
            reason = _reason(error) if isinstance(error, PyreqwestError) else str(error)
            raise ConfigError([f"the files of TLS_CA_PATH, TLS_CERT_PATH, TLS_KEY_PATH: {reason}"]) from error

    async def send(self, request: Request, headers: Mapping[str, str], timeout: float) -> Response:
        """Send a request and return the answer, whatever its status. ``timeout`` is in seconds, for all of it.

        Raises `TransportError`. A cancelled call may have been processed.
        """
        if self._client is None:
            raise ConnectionFailedError("the transport is not open")
        caller = asyncio.current_task()
        cancelled_before = caller.cancelling() if caller is not None else 0
        began = time.monotonic()
        try:
            builder = self._client.request(request.method, self._base_url + request.path)
            builder = builder.headers(headers).timeout(_seconds(timeout))
            if request.body is not None:
                builder = builder.header("content-type", "application/json").body_bytes(request.body)
            async with builder.build_streamed() as response:
                body = await self._body(response, began + timeout)
        except TransportError:
            raise
        except PyreqwestError as error:
            # The library calls whatever happens to a URL with "timeout" in it a timeout, and every poll's has it
            # (observed with 0.15: a refused connection).
            if isinstance(error, RequestTimeoutError) and time.monotonic() - began >= timeout:
                raise CallTimedOutError(f"no answer within {timeout:g} s") from error
            if isinstance(error, ConnectTimeoutError) and time.monotonic() - began >= self._connect_timeout:
                raise ConnectionFailedError(f"no connection within {self._connect_timeout:g} s") from error
            raise ConnectionFailedError(_reason(error)) from error
        except Exception as error:  # the library's own are not all that it raises for what is no HTTP
            raise ConnectionFailedError(f"{type(error).__name__}: {error}") from error
        finally:
            # pyreqwest 0.15 swallows a cancellation that comes when the answer does (observed: 1 in 3 at that moment).
            if caller is not None and caller.cancelling() > cancelled_before:
                raise asyncio.CancelledError
        found = {name: value for name in _WANTED_HEADERS if (value := _header(response, name)) is not None}
        return Response(response.status, found, body)

    async def _body(self, response: StreamedResponse, until: float) -> bytes:
        """Read the body as it is after decompression. Raises `AnswerTooLongError`."""
        expected = _length(response)
        if expected is not None and expected > self._max_answer:
            raise self._too_long()
        first = bytes(await response.body_reader.read(_SMALL) or b"")
        if len(first) == (expected or 0):
            return first  # the usual case
        pieces = [first, *[piece async for piece in self._pieces(response, _SMALL - len(first))]]
        if sum(map(len, pieces)) <= _SMALL:
            return b"".join(pieces)
        wait = max(0.0, until - time.monotonic())
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(wait):
                    await stack.enter_async_context(self._budget.reserved(expected or self._max_answer))
            except TimeoutError:
                raise CallTimedOutError("no room in memory for a long answer: others are being read") from None
            pieces += [piece async for piece in self._pieces(response, self._max_answer - sum(map(len, pieces)))]
            if sum(map(len, pieces)) > self._max_answer:
                raise self._too_long()
            return b"".join(pieces)

    @staticmethod
    async def _pieces(response: StreamedResponse, most: int) -> AsyncGenerator[bytes]:
        """Yield what is left of the body, up to the first byte over ``most``."""
        size = 0
        while size <= most and (piece := await response.body_reader.read(min(_PIECE, most + 1 - size))):
            size += len(piece)
            yield bytes(piece)

    def _too_long(self) -> AnswerTooLongError:
        return AnswerTooLongError(f"the answer is longer than MAX_RESPONSE_BYTES={self._max_answer}")

    async def close(self) -> None:
        """Close the connections. Calls in flight fail."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _header(response: StreamedResponse, name: str) -> str | None:
    """Return a header of the answer; one that is not printable ASCII counts as absent."""
    try:
        value = response.get_header(name)
    except ValueError:
        return None
    return value if value is not None and value.isascii() and value.isprintable() else None


@functools.lru_cache(maxsize=16)  # the same few, thousands of times a second
def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _length(response: StreamedResponse) -> int | None:
    """Return how long the body says it is; None where that is unknown, as it is compressed or comes in chunks."""
    text = response.get_header("content-length") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _reason(error: PyreqwestError) -> str:
    """Return the innermost cause, which is what a person wants to read."""
    causes = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return causes[-1]["message"] if causes else error.message
