"""Keeps web pages away from an orchestrator that listens on the developer's own machine.

A page from another site can make a browser send requests to loopback, and the site's own name can be made to resolve to
it (DNS rebinding). ``Origin`` gives away the first, ``Host`` the second.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from avtomatika_worker.devserver.client_api import ClientError, json_answer

_LOCAL: Final = (".local", ".internal", ".lan", ".home.arpa")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is the machine's own."""
    name = host.strip("[]").lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Return whether a name is an address, or one that public DNS cannot give to another site's page."""
    name = host.strip("[]").lower().removesuffix(".")
    if not name:
        return False
    if is_loopback(name) or "." not in name or name.endswith(_LOCAL):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in {socket.gethostname().lower(), socket.getfqdn().lower()}
    return True


def host_name(netloc: str) -> str:
    """Return the host of ``host:port``, IPv6 addresses in brackets included; "" if the text is neither."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """Its `answer` is a middleware that refuses foreign pages and writes errors as JSON."""

    def __init__(self, bound_to: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self._headers = headers
        self._loopback_only = is_loopback(bound_to)

    def _answers_to(self, host: str) -> bool:
        """Whether a request may use this host name, whatever its path: foreign pages know every path."""
        name = host_name(host)
        return is_loopback(name) if self._loopback_only else is_local(name)

    def _check(self, request: web.Request) -> None:
        host, origin = request.headers.get(hdrs.HOST, ""), request.headers.get(hdrs.ORIGIN)
        if not self._answers_to(host):
            allowed = (
                "bound to loopback, only loopback names" if self._loopback_only else "only addresses and local names"
            )
            raise ClientError(403, f"Host is {host[:200]!r}: {allowed} are allowed")
        if origin is not None and origin.partition("://")[2] != host:
            raise ClientError(403, "requests from other origins are refused")

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
            if error.status in {404, 405}:
                return answer  # released orchestrators say nothing of their version where they have no route
        answer.headers.update(self._headers())
        return answer
