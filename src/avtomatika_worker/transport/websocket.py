"""The commands' WebSocket (RXON.md, "Transport"). aiohttp is imported only when a socket is opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from avtomatika_worker.errors import ConnectionFailedError, RejectedError
from avtomatika_worker.transport.tls import TlsFiles

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

    It ends, too, when the other side sends more than ``max_message`` bytes in one.
    Raises `RejectedError` when the upgrade is refused, `ConnectionFailedError` when there is no connection or it
    breaks.
    Closing the iterator closes the socket.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    try:
        context = tls.ssl_context() if tls and url.startswith("wss") else True
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            # As http(s)://, for which aiohttp looks at HTTP(S)_PROXY; for ws(s):// it would want variables of its own.
            session.ws_connect(
                "http" + url.removeprefix("ws"),
                headers=headers,
                heartbeat=_PING_EVERY,
                max_msg_size=max_message,
                ssl=context,
            ) as socket,
        ):
            on_open()
            async for message in socket:
                if message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
                    yield message.data
    except aiohttp.WSServerHandshakeError as error:
        raise RejectedError(error.status, error.message) from error
    # TLS files are read for every connection, perhaps in the middle of being written: OSError, or ValueError.
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise ConnectionFailedError(str(error) or type(error).__name__) from error
