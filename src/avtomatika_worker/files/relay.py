"""The two ends of a connection through the proxy in front of stores: the one from obstore and the one to a host.

Both live on the proxy's event loop.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from avtomatika_worker.files.egress_route import REDIRECTED, Authority, Route
from avtomatika_worker.files.heads import Answer, Request, parse_answer, parse_request
from avtomatika_worker.files.strangers import surplus
from avtomatika_worker.files.upstream import ProxyFor, UpstreamProxy

_CONNECT_TIMEOUT: Final = 10.0
"""Seconds for connecting to a host, the same as obstore's."""

STALL_TIMEOUT: Final = 60.0
"""Seconds for which a host may take nothing of what is sent to it, as obstore's own for what it reads."""

_HEAD_END: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 64 * 1024


class FromClient(asyncio.Protocol):
    """A connection from obstore. It leads to one authority, whatever later requests name."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routes: Mapping[str, Route],
        proxy_for: ProxyFor,
        others: dict[FromClient, None],
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self._loop = loop
        self._routes = routes
        self._proxy_for = proxy_for
        self._others = others
        self._stall_timeout = stall_timeout
        self._stalled: asyncio.TimerHandle | None = None
        self.made_at: float = 0.0
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._body_left = 0
        self._tunnel = False
        self._authority: tuple[bool, Authority] | None = None
        self._route: Route | None = None
        self._proxy: UpstreamProxy | None = None
        self._up: _FromHost | None = None
        self._connecting: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------ called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]
        self._others[self] = None
        self.made_at = self._loop.time()
        strangers = [each for each in self._others if each.is_stranger]
        for each in strangers[: surplus([self.made_at - each.made_at for each in strangers])]:
            del self._others[each]
            each.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as it is called
        """End."""
        self._others.pop(self, None)
        self._forget_stall()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._up is not None:
            self._up.abort()  # a host that reads no more would keep what is left for it in memory

    def pause_writing(self) -> None:
        """Read less from the store: the client does not keep up."""
        if self._up is not None:
            self._up.pause()

    def resume_writing(self) -> None:
        """Read on."""
        if self._up is not None:
            self._up.resume()

    def data_received(self, data: bytes) -> None:
        """Take more of a request."""
        if self._up is not None and not self._buffer and (self._tunnel or len(data) <= self._body_left):
            self._body_left -= 0 if self._tunnel else len(data)
            self._up.write(data)
            return
        self._buffer += data
        if self._connecting is None:
            self._go_on()

    # ------------------------------------------------------------------------------------------ what is done

    @property
    def is_stranger(self) -> bool:
        """Whether it has not shown the key of a route."""
        return self._route is None

    def write(self, data: bytes) -> None:
        """Pass on data from a host if its route has room for it."""
        if self._route is None or self._transport is None or not self._route.spend(len(data)):
            self.abort()
            return
        self._transport.write(data)

    def begin(self, answer: Answer) -> bool:
        """Accept the head of an answer; return whether the answer may pass."""
        if self._route is None:
            return False
        if 300 <= answer.status < 400:
            self._route.note(REDIRECTED, passing=False)
            return False
        return self._route.has_room(answer.length or 0)

    def close(self) -> None:
        """Close after the written data has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End this connection and its peer."""
        if self._transport is not None:
            self._transport.abort()
        if self._up is not None:
            self._up.abort()

    def pause(self) -> None:
        """Read no more for now. Nobody notices meanwhile that obstore has given up: this lasts for a while at most."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._forget_stall()
            self._stalled = self._loop.call_later(self._stall_timeout, self.abort)

    def resume(self) -> None:
        """Read on."""
        self._forget_stall()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _go_on(self) -> None:
        """Process the received data: heads, and bodies in pieces."""
        while self._buffer:
            if self._tunnel or self._body_left:
                self._pass_on()
                continue
            end = self._buffer.find(_HEAD_END)
            if end < 0 or end > _LONGEST_HEAD:
                if len(self._buffer) > _LONGEST_HEAD:
                    self.abort()
                return
            head, self._buffer = self._buffer[:end], self._buffer[end + len(_HEAD_END) :]
            try:
                self._ask(parse_request(head))
            except ValueError:
                self._refuse("400 Bad Request")
            if self._connecting is not None or self._transport is None or self._transport.is_closing():
                return

    def _pass_on(self) -> None:
        piece = self._buffer if self._tunnel else self._buffer[: self._body_left]
        self._buffer = self._buffer[len(piece) :]
        self._body_left -= 0 if self._tunnel else len(piece)
        if self._up is not None:
            self._up.write(piece)

    def _ask(self, request: Request) -> None:
        route = self._route = self._route_of(request)
        if route is None:
            self._refuse("407 Proxy Authentication Required")
            return
        authority = request.authority
        problem = route.refusal("https" if request.is_tunnel else "http", authority, request.by_name)
        if problem is not None:
            route.note(problem, passing=False)
            self._refuse("403 Forbidden")
            return
        place = (request.is_tunnel, authority)
        if self._up is not None and self._authority == place and not request.is_tunnel:
            self._send(request)
        elif self._up is None:
            self._authority = place
            self._connecting = self._loop.create_task(self._connect(route, request, authority))
        else:
            self._refuse("400 Bad Request")

    def _route_of(self, request: Request) -> Route | None:
        kind, _, text = request.by_name.get("proxy-authorization", "").partition(" ")
        try:
            key = base64.b64decode(text, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self._routes.get(key) if kind.lower() == "basic" else None

    async def _connect(self, route: Route, request: Request, authority: Authority) -> None:
        self.pause()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                self._proxy, self._up = await self._connected(route, request, authority)
        except (OSError, TimeoutError, ValueError) as error:
            route.note(_why(error), passing=True)
            self._refuse("502 Bad Gateway")
            return
        finally:
            self._connecting = None
            self.resume()
        if request.is_tunnel:
            self._tunnel = True
            if self._transport is not None:
                self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            self._send(request)
        self._go_on()

    async def _connected(
        self, route: Route, request: Request, authority: Authority
    ) -> tuple[UpstreamProxy | None, _FromHost]:
        allowed, tls = route.allowed, None
        if allowed is not None and authority == allowed.store and not request.is_tunnel:
            tls, authority = allowed.tls, allowed.place
        host, port = authority
        bracketed = f"[{host}]" if ":" in host else host
        tunnel = tls is not None or request.is_tunnel
        proxy = self._proxy_for(f"{'https' if tunnel else 'http'}://{bracketed}:{port}/")
        up = _FromHost(self, request.is_tunnel)
        if proxy is None:
            await self._loop.create_connection(lambda: up, host, port, ssl=tls)
            return None, up
        await self._connect_to_proxy(proxy, up)
        if not tunnel:
            return proxy, up
        try:
            await up.tunnel(f"{bracketed}:{port}", proxy.headers, tls, host)
        except BaseException:
            up.abort()
            raise
        return None, up

    async def _connect_to_proxy(self, proxy: UpstreamProxy, up: _FromHost) -> None:
        parts = urlsplit(proxy.url)
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        await self._loop.create_connection(
            lambda: up, parts.hostname or "", parts.port or (443 if tls else 80), ssl=tls
        )

    def _send(self, request: Request) -> None:
        self._body_left = request.length
        if self._up is not None:
            self._up.ask(request.head(self._proxy.headers if self._proxy is not None else None), request.method)

    def refuse_answer(self) -> None:
        """Answer instead of a host."""
        if self._up is not None:
            self._up.abort()
        self._refuse("403 Forbidden")

    def _refuse(self, status: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            self._transport.close()


class _FromHost(asyncio.Protocol):
    """A connection to a host. It passes on exactly the bytes of an answer; tunnels pass on everything."""

    def __init__(self, client: FromClient, is_tunnel: bool) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._tunneled: asyncio.Future[bytes] | None = None
        self._head = b""
        self._method = ""
        self._left: int | None = None if is_tunnel else 0

    async def tunnel(self, authority: str, headers: Mapping[str, str], tls: ssl.SSLContext | None, host: str) -> None:
        """Ask a proxy for a tunnel, with TLS inside if there is a context. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._tunneled = loop.create_future()
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{more}\r\n".encode("latin-1"))
        status = (await self._tunneled).split(b" ", 2)[1:2]
        self._tunneled = None
        if status != [b"200"] or self._transport is None:
            raise ConnectionError("the environment's proxy refuses a tunnel")
        if tls is not None:
            self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=host)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._tunneled is not None:
            self._take_tunnel(self._tunneled, data)
        elif self._method:
            self._take_head(data)
        elif self._left is None:
            self._client.write(data)
        elif len(data) <= self._left:
            self._left -= len(data)
            self._client.write(data)
        else:
            self._client.abort()  # more than the answer, or an unsolicited one

    def _take_head(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(_HEAD_END)
        try:
            if len(head) > _LONGEST_HEAD:
                raise ValueError("the head of an answer is too long")
            if not end:
                return
            answer = parse_answer(head, self._method)
        except ValueError:
            self._client.abort()
            return
        if not self._client.begin(answer):
            self._client.refuse_answer()
            return
        self._head, self._method, self._left = b"", "", answer.length
        self._client.write(answer.head + _HEAD_END)
        if rest:
            self.data_received(rest)

    def _take_tunnel(self, waiting: asyncio.Future[bytes], data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(_HEAD_END)
        if waiting.done():
            self.abort()
        elif end and not rest:  # in a tunnel, the client speaks first
            self._head = b""
            waiting.set_result(head)
        elif end or len(self._head) > _LONGEST_HEAD:
            waiting.set_exception(ConnectionError("the environment's proxy does not speak HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as it is called
        if self._tunneled is not None and not self._tunneled.done():
            self._tunneled.set_exception(ConnectionError("the environment's proxy closed the connection"))
        self._client.close()

    def pause_writing(self) -> None:
        self._client.pause()

    def resume_writing(self) -> None:
        self._client.resume()

    def ask(self, head: bytes, method: str) -> None:
        """Send the head of a request; the next data is its answer."""
        self._method = method
        self.write(head)

    def write(self, data: bytes) -> None:
        """Pass on data from the client."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        """Pause reading."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"it cannot be reached within {_CONNECT_TIMEOUT:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return "its name cannot be looked up"
    if isinstance(error, OSError) and error.errno:
        return f"it cannot be reached: {os.strerror(error.errno)}"  # an event loop's own words name the address
    return f"it cannot be reached: {type(error).__name__}"
