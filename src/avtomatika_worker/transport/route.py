"""The route to an orchestrator: where to connect, and what each request begins with."""

from __future__ import annotations

import base64
import functools
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from avtomatika_worker.errors import ConfigError, ConnectionFailedError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.decoding import ACCEPTED
from avtomatika_worker.transport.proxies import Proxy, proxy_for
from avtomatika_worker.transport.tls import TlsFiles

_PORTS: Final = {"http": 80, "https": 443}
_TARGET: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")
_JOINED: Final = 64 * 2**10


class Hop(msgspec.Struct, frozen=True):
    """A server on the route. ``tls`` is the context if it speaks TLS."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """Connect to ``first``; if ``beyond`` is given, request a tunnel there, from ``first``, with ``connect``.

    ``prefix`` precedes the path of each request; ``fixed`` are header lines of each, which may hold credentials.
    ``proxied`` is whether ``first`` is a proxy.
    """

    first: Hop
    prefix: str
    beyond: Hop | None = None
    connect: bytes = field(default=b"", repr=False)
    fixed: bytes = field(default=b"", repr=False)
    proxied: bool = False


def find_route(base_url: str, user_agent: str, tls: TlsFiles) -> Route:
    """Return the route to ``base_url``, through the proxy that the environment names for it.

    Raises `ConfigError` for unusable settings, OSError if a TLS file cannot be read.
    """
    parts = urlsplit(base_url)
    target = _hop(base_url, parts, _context(tls, "http/1.1") if parts.scheme == "https" else None)
    fixed = {"Host": _authority(parts), "User-Agent": user_agent, "Accept-Encoding": ACCEPTED}
    if parts.username is not None:
        fixed["Authorization"] = _basic(parts)
    try:
        proxy = proxy_for(base_url)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    if proxy is None:
        return Route(target, parts.path, fixed=write_headers(fixed))
    first = _proxy_hop(proxy, tls)
    if parts.scheme == "http":
        prefix = f"http://{_authority(parts)}{parts.path}"
        return Route(first, prefix, fixed=write_headers({**fixed, **proxy.headers}), proxied=True)
    place = f"{_bracketed(target.host)}:{target.port}"
    lines = write_headers({"Host": place, "User-Agent": user_agent, **proxy.headers})
    connect = b"CONNECT %b HTTP/1.1\r\n%b\r\n" % (place.encode(), lines)
    return Route(first, parts.path, target, connect, write_headers(fixed), proxied=True)


def write_request(route: Route, request: Request, headers: bytes) -> bytes:
    """Return a request as it goes out; ``headers`` are lines. Raises `ConnectionFailedError` for an invalid one."""
    start = _start(request.method, route.prefix + request.path)
    body = request.body
    if body is None:
        end = b"\r\n" if request.method in {"GET", "HEAD"} else b"Content-Length: 0\r\n\r\n"
        return b"".join((start, route.fixed, headers, end))
    end = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"".join((start, route.fixed, headers, end, body))


@functools.lru_cache(64)  # all results have the same
def _start(method: str, target: str) -> bytes:
    if _TARGET.fullmatch(target) is None:
        target = quote(target, safe="/:?#[]@!$&'()*+,;=%-._~")
    return f"{method} {target} HTTP/1.1\r\n".encode()


def write_headers(headers: Mapping[str, str]) -> bytes:
    """Return header lines. Raises `ConnectionFailedError` for an invalid one, without its value."""
    for name, value in headers.items():
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ConnectionFailedError(f"the header {name!r} cannot be sent: its value is not allowed in a header")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def _hop(url: str, parts: SplitResult, context: ssl.SSLContext | None) -> Hop:
    try:
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise ConfigError([f"{_without_credentials(parts)}: not a URL that can be called"]) from None
    if not parts.hostname:
        raise ConfigError([f"{url}: not a URL that can be called"])
    return Hop(_ascii(parts.hostname), port, context)


def _proxy_hop(proxy: Proxy, tls: TlsFiles) -> Hop:
    parts = urlsplit(proxy.url)
    # The worker's certificate is for the orchestrator, not for a proxy in front of it.
    context = _context(TlsFiles(ca=tls.ca), "http/1.1") if parts.scheme == "https" else None
    return _hop(proxy.url, parts, context)


def _context(tls: TlsFiles, *protocols: str) -> ssl.SSLContext:
    """Make a context. Raises `ConfigError`, OSError for a file that cannot be read."""
    try:
        context = tls.ssl_context()
    except (ssl.SSLError, ValueError) as error:
        problems = tls.problems() or [str(error)]
        raise ConfigError(problems) from error
    context.set_alpn_protocols(list(protocols))
    return context


def _authority(parts: SplitResult) -> str:
    """Return the host, and the port unless it is the default, as written in a URL."""
    host = _bracketed(_ascii(parts.hostname or ""))
    return host if parts.port in {None, _PORTS.get(parts.scheme)} else f"{host}:{parts.port}"


def _without_credentials(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _basic(parts: SplitResult) -> str:
    both = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(both.encode()).decode()}"
