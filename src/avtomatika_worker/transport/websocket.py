"""The commands' WebSocket (RXON.md, "Transport"). aiohttp is imported only when a socket is opened."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from avtomatika_worker.errors import ConnectionFailedError, RejectedError, TransportError
from avtomatika_worker.transport.proxies import proxy_for
from avtomatika_worker.transport.tls import TlsFiles

if TYPE_CHECKING:
    import aiohttp

_PING_EVERY: Final = 20.0  # seconds; finds a dead peer

OPEN_TIMEOUT: Final = 30.0
"""Seconds for the connection and the answer to the upgrade."""

MAX_MESSAGE: Final = 1 << 20
"""Bytes of the longest message; commands have about a hundred."""


async def listen(
    url: str,
    headers: Mapping[str, str],
    *,
    tls: TlsFiles | None = None,
    max_message: int = MAX_MESSAGE,
    open_timeout: float = OPEN_TIMEOUT,
    on_open: Callable[[], None] = lambda: None,
) -> AsyncGenerator[str | bytes, None]:
    """Connect and yield every message until the other side closes, or sends one of more than ``max_message`` bytes.

    The socket is open within ``open_timeout`` seconds; ``on_open`` is called then. Redirects are not followed, since
    the token must not leak and commands must not come from elsewhere. The environment's proxy is used, ``~/.netrc`` is
    not. Raises `RejectedError` if the upgrade is refused or redirected, and `ConnectionFailedError` if there is no
    connection or it breaks, whatever the other side sent. Closing the iterator closes the socket.
    """
    import aiohttp

    from avtomatika_worker.transport.connector import Connector

    connector, limit = Connector(), asyncio.timeout(open_timeout)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_refuse_redirect)
    try:
        way = _way(url, headers, tls)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[redirects]) as session:
            async with limit:
                socket = await session.ws_connect(
                    way.url,
                    headers=way.headers,
                    heartbeat=_PING_EVERY,
                    max_msg_size=max_message,
                    proxy=way.proxy,
                    proxy_headers=way.proxy_headers,
                    ssl=way.tls,
                )
            try:
                on_open()
                async for message in socket:
                    if message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                        yield message.data
            finally:
                await socket.close()
    except TransportError:
        raise
    except aiohttp.WSServerHandshakeError as error:
        raise RejectedError(error.status, error.message) from None  # its repr holds the token
    # TLS files are read for every connection, perhaps while they are being written; and the library's parsers raise
    # their own errors for what is neither HTTP nor a WebSocket.
    except Exception as error:  # noqa: BLE001 - the types are the library's
        text = f"no WebSocket within {open_timeout:g} s" if limit.expired() else str(error) or type(error).__name__
        raise ConnectionFailedError(text) from None
    finally:
        await connector.wait_closed()


class _Way(msgspec.Struct, frozen=True):
    """Where to connect to, and how. With TLS, the proxy gets headers of its own."""

    url: str
    headers: Mapping[str, str]
    proxy: str | None
    proxy_headers: Mapping[str, str] | None
    tls: ssl.SSLContext | bool

    def __repr__(self) -> str:  # headers hold the token, and the proxy's credentials
        return f"_Way(url={self.url!r})"


def _way(url: str, headers: Mapping[str, str], tls: TlsFiles | None) -> _Way:
    """Return the way to ``url``. Raises what `TlsFiles.ssl_context` and `proxy_for` raise."""
    http_url = "http" + url.removeprefix("ws")
    proxy = proxy_for(http_url)
    proxy_url, for_proxy = (None, {}) if proxy is None else (proxy.url, proxy.headers)
    if url.startswith("wss"):
        return _Way(http_url, headers, proxy_url, for_proxy, tls.ssl_context() if tls else True)
    return _Way(http_url, {**headers, **for_proxy}, proxy_url, None, True)


async def _refuse_redirect(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
    """Stop a request that is about to follow a redirect: `ws_connect` has no option for that."""
    params.response.close()
    raise RejectedError(params.response.status, "a redirect, which is not followed")
