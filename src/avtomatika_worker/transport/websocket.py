"""The commands' WebSocket (RXON.md, "Transport"). aiohttp is imported only when a socket is opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Final

from avtomatika_worker.errors import ConnectionFailedError, RejectedError, TransportError
from avtomatika_worker.transport.proxies import proxy_for
from avtomatika_worker.transport.tls import TlsFiles

if TYPE_CHECKING:
    import aiohttp

_PING_EVERY: Final = 20.0  # seconds; finds a dead peer
MAX_MESSAGE: Final = 1 << 20
"""Bytes of the longest message; a command is a hundred."""


async def listen(
    url: str,
    headers: Mapping[str, str],
    *,
    tls: TlsFiles | None = None,
    max_message: int = MAX_MESSAGE,
    on_open: Callable[[], None] = lambda: None,
) -> AsyncGenerator[str | bytes, None]:
    """Connect and yield every message until the other side closes.

    It ends, too, when the other side sends more than ``max_message`` bytes in one. Redirects are not followed: the
    token must not go elsewhere, nor commands come from there. The proxy is the environment's; ``~/.netrc`` is not read.
    Raises `RejectedError` when the upgrade is refused or redirected, `ConnectionFailedError` when there is no
    connection or it breaks, whatever the other side sent.
    Closing the iterator closes the socket.
    """
    import aiohttp

    from avtomatika_worker.transport.connector import Connector

    connector = Connector()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    http_url = "http" + url.removeprefix("ws")
    redirects = aiohttp.TraceConfig()
    redirects.on_request_redirect.append(_refuse_redirect)
    try:
        secure = url.startswith("wss")
        context = tls.ssl_context() if tls and secure else True
        proxy = proxy_for(http_url)
        for_proxy = proxy.headers if proxy else {}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[redirects]) as session,
            session.ws_connect(
                http_url,
                headers=headers if secure else {**headers, **for_proxy},
                heartbeat=_PING_EVERY,
                max_msg_size=max_message,
                proxy=proxy.url if proxy else None,
                proxy_headers=for_proxy if secure else None,
                ssl=context,
            ) as socket,
        ):
            on_open()
            async for message in socket:
                if message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                    yield message.data
    except TransportError:
        raise
    except aiohttp.WSServerHandshakeError as error:
        raise RejectedError(error.status, error.message) from None  # its repr holds the token
    # TLS files are read for every connection, perhaps in the middle of being written; and the library's parsers raise
    # errors of their own for what is no HTTP and no WebSocket.
    except Exception as error:  # noqa: BLE001 - the kinds are the library's own
        raise ConnectionFailedError(str(error) or type(error).__name__) from None
    finally:
        await connector.wait_closed()


async def _refuse_redirect(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
    """Stop a request that is about to follow a redirect: `ws_connect` has no switch for that."""
    params.response.close()
    raise RejectedError(params.response.status, "a redirect, which is not followed")
