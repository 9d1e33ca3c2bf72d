"""Answers on the wire: good ones, refusals, and the broken ones that faults ask for."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import orjson
from aiohttp import web

from avtomatika_worker.devserver.faults import Fault
from avtomatika_worker.devserver.releases import Release
from avtomatika_worker.devserver.snapshots import RecordedCall
from avtomatika_worker.devserver.verification import Refusal
from avtomatika_worker.protocol.codec import VERSION_HEADER

_COMPRESSED_FROM: Final = 500
_GARBAGE: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is not HTTP \xff\xfe\r\n\r\n"
_PAGE: Final = b"<!DOCTYPE html><html><head><title>%d</title></head><body><h1>%d</h1><hr>proxy</body></html>"


class Answers:
    """Builds answers with the headers of one release."""

    def __init__(self, release: Release, clock: Callable[[], float]) -> None:
        self._release = release
        self._clock = clock
        self._date = (0, "")

    def headers(self) -> dict[str, str]:
        """Return the headers of every answer: the version, and the date of the orchestrator's own clock."""
        second = int(self._clock())
        if self._date[0] != second:
            self._date = (second, email.utils.formatdate(second, usegmt=True))
        return {VERSION_HEADER: self._release.dialect.version, "Date": self._date[1]}

    def ok(self, body: bytes | dict[str, Any] | None) -> web.Response:
        """Answer 200 with JSON, or 204 with nothing."""
        if body is None:
            return web.Response(status=204, headers=self.headers())
        return self._json(200, body if isinstance(body, bytes) else orjson.dumps(body))

    def refused(self, refusal: Refusal) -> web.Response:
        """Answer with a refusal."""
        answer = self._json(refusal.status, orjson.dumps({"error": refusal.text}))
        if refusal.status == 429 and self._release.limits_first:  # there, that comes from before the protocol
            del answer.headers[VERSION_HEADER]
        return answer

    def _json(self, status: int, body: bytes) -> web.Response:
        response = web.Response(status=status, body=body, content_type="application/json", headers=self.headers())
        if len(body) > _COMPRESSED_FROM:
            response.enable_compression()
        return response

    def scripted(self, fault: Fault) -> web.Response:
        """Answer as a fault of kind ``status``, ``html`` or ``body`` asks."""
        if fault.kind == "html":  # a proxy knows no version
            response = web.Response(status=fault.status, body=_PAGE % (fault.status, fault.status))
            response.content_type = "text/html"
            response.headers["Date"] = self.headers()["Date"]  # not the one of this process, which may be simulated
        elif fault.kind == "body":
            response = web.Response(body=fault.body, content_type="application/json", headers=self.headers())
        else:
            response = self._json(fault.status, orjson.dumps({"error": "an injected fault"}))
        if fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        response.headers.update(fault.headers or {})
        return response


def break_connection(request: web.Request, fault: Fault, call: RecordedCall) -> None:
    """End the call's connection as the fault asks, without a good answer."""
    transport = request.transport
    if transport is None:
        return
    if fault.kind == "reset":
        _reset(transport)
        return
    if fault.kind == "garbage":
        transport.write(_GARBAGE)
    elif fault.kind == "truncate":
        transport.write(_half_an_answer(call))
    transport.close()


def _reset(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            # With a linger time of zero, closing sends RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _half_an_answer(call: RecordedCall) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {max(len(call.reply), 16)}\r\n\r\n"
    return head.encode() + call.reply[: len(call.reply) // 2]


def common_name(request: web.Request) -> str | None:
    """Return the common name of the client's certificate, or None without one."""
    certificate: dict[str, Any] = request.get_extra_info("peercert") or {}
    subject: tuple[tuple[tuple[str, str], ...], ...] = certificate.get("subject", ())
    return next((value for part in subject for key, value in part if key == "commonName"), None)
