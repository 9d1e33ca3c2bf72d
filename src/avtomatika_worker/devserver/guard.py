"""Keeping web pages away from an orchestrator that listens on the developer's own machine.

A page of another site can make a browser send requests to loopback, and a name of its own can be made to resolve to
it (DNS rebinding). The first is told by ``Origin``, the second by ``Host``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from avtomatika_worker.devserver.client_api import ClientError, json_answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is the machine's own."""
    name = host.strip("[]").lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(netloc: str) -> str:
    """Return the host of ``host:port``, of an IPv6 address in brackets too; "" for what is neither."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """Its `answer` is a middleware that refuses strangers, and writes errors as JSON."""

    def __init__(self, bound_to: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self._headers = headers
        self._loopback_only = is_loopback(bound_to)
        self._trusted: set[str] = set()

    def _check(self, request: web.Request) -> None:
        host, origin = request.headers.get(hdrs.HOST, ""), request.headers.get(hdrs.ORIGIN)
        if self._loopback_only and host not in self._trusted:
            if not is_loopback(host_name(host)):
                raise ClientError(403, f"Host is {host[:200]!r}: bound to loopback, only loopback names are answered")
            if len(self._trusted) < 100:
                self._trusted.add(host)
        if origin is not None and origin.partition("://")[2] != host:
            raise ClientError(403, "requests of other origins are refused")

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request."""
        try:
            self._check(request)
            return await handler(request)
        except ClientError as error:
            answer = json_answer({"error": str(error), **error.more}, error.status)
        except web.HTTPException as error:
            answer = json_answer({"error": error.text or error.reason}, error.status)
            if hdrs.ALLOW in error.headers:
                answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        answer.headers.update(self._headers())
        return answer
