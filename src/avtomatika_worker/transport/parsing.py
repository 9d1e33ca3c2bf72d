"""The reading half of an HTTP/1.1 client, sans I/O: bytes in, one answer after the other out.

llhttp, in `httptools`, handles the grammar, and refuses what two parsers could read differently: a body with two
lengths, a folded header, a lone line feed. Left to this module are limits, and where an answer ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import httptools

from avtomatika_worker.errors import AnswerTooLongError, ConnectionFailedError, TransportError

MAX_HEAD: Final = 64 * 2**10
"""Maximum bytes in a row that are not of the body: a head, interim answers, trailers, chunk extensions."""

MAX_HEADERS: Final = 100

_READ: Final = {
    name.encode(): name
    for name in ("x-rxon-version", "date", "retry-after", "content-length", "content-encoding", "transfer-encoding")
}
_WANTED: Final = frozenset({"x-rxon-version", "date", "retry-after"})
_NO_BODY: Final = frozenset({204, 304})
_HEAD_END: Final = b"\r\n\r\n"

_MOST_KNOWN: Final = 8
"""Heads that a connection remembers: under load, those within a second are mostly identical."""


class _Head(NamedTuple):
    """The parsed head of an answer with a ``length``, after which the connection may carry another call."""

    status: int
    headers: dict[str, str]
    encoding: str
    length: int


class AnswerParser:
    """Parses the answers that arrive on one connection.

    ``complete``: the answer has ended. ``reusable``: the connection may carry another call afterwards. ``touched``: a
    byte of the answer has arrived. ``size``: bytes of the body so far, as on the wire; at most ``max_body``.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._parser = httptools.HttpResponseParser(self)
        self._last_texts: tuple[list[tuple[str, bytes]], dict[str, str]] = ([], {})
        self._headers: dict[str, str] = {}
        self._known: dict[bytes, _Head] = {}
        self.expect()

    def expect(self, *, head: bool = False) -> None:
        """Prepare for the next answer. With ``head``, it is the answer to a HEAD request, and has no body."""
        self.complete: bool = False
        self.reusable: bool = False
        self.touched: bool = False
        self.status: int = 0
        self.size: int = 0
        self.length: int | None = None
        self.encoding: str = ""
        self._pieces: list[bytes] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._to_head = head
        self._in_body = False
        self._until_end = False
        self._idle = 0
        self._problem: TransportError | None = None

    def feed(self, data: bytes) -> bool:
        """Parse more of the answer; return whether it is complete. Raises `TransportError`."""
        end = -1 if self.touched or self._to_head else data.find(_HEAD_END)
        self.touched = True
        if end < 0:
            return self._parse(data)
        start = end + len(_HEAD_END)
        head, size = data[:start], len(data) - start
        known = self._known.get(head)
        if known is not None and known.length == size:  # the parser, which does not see it, would find the same
            self.status, self._headers, self.encoding, self.length = known
            self.size = size
            self._pieces.append(data[start:])
            self.complete = self.reusable = True
        elif self._parse(data) and self.reusable and self.length == size:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[head] = _Head(self.status, self._headers, self.encoding, size)
        return self.complete

    def _parse(self, data: bytes) -> bool:
        self._idle += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.complete:  # what follows it is malformed
                self.reusable = False
                return True
            raise self._problem or _not_http(str(error)) from None
        if self._idle > MAX_HEAD and not self.complete:
            raise _not_http(f"more than {MAX_HEAD} bytes outside of the body")
        return self.complete

    def end(self) -> bool:
        """Handle the end of the connection; return whether it ends the answer."""
        self.complete = self.complete or self._until_end
        return self.complete

    def headers(self) -> Mapping[str, str]:
        """Return the headers that are used; one that is not printable ASCII counts as absent."""
        return self._headers

    def body(self) -> bytes:
        """Return the body as it is on the wire."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    # --------------------------------------------------------------------------------------- called by httptools

    def on_message_begin(self) -> None:
        """Refuse a second answer: only one was asked for."""
        if self.complete:
            raise _not_http("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, or a trailer, which is never read."""
        self._fields.append((name, value))
        if len(self._fields) > MAX_HEADERS:
            self._refuse(_not_http(f"more than {MAX_HEADERS} headers"))

    def on_headers_complete(self) -> None:
        """Decide what follows the head."""
        status = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if 100 <= status < 200 and status != 101:  # interim: the answer is still to come
            return
        if status < 200:
            self._refuse(_not_http(f"an unexpected status, {status}"))
        self.status = status
        self._in_body = True
        self._idle = 0
        chunked = self._read(fields)
        self._until_end = not chunked and self.length is None and status not in _NO_BODY
        self.complete = self._to_head
        if self.length is not None and self.length > self._max_body and not self._to_head and status not in _NO_BODY:
            self._refuse(self._too_long())

    def _read(self, fields: list[tuple[bytes, bytes]]) -> bool:
        """Read the headers that matter; return whether the body comes in chunks."""
        chunked = False
        wanted: list[tuple[str, bytes]] = []
        for spelled, value in fields:
            name = _READ.get(spelled.lower())
            if name is None:
                continue
            if name in _WANTED:
                wanted.append((name, value))
            elif name == "content-length":
                self.length = int(value)  # llhttp accepts only digits, and only one such header
            elif name == "transfer-encoding":
                if chunked or value.strip().lower() != b"chunked":
                    self._refuse(_not_http("a Transfer-Encoding other than chunked"))
                chunked = True
            else:
                # Some servers and proxies name the absence of a compression.
                named = map(str.strip, value.decode("latin-1").lower().split(","))
                packed = [each for each in named if each not in {"", "identity"}]
                self.encoding = ", ".join([*filter(None, [self.encoding]), *packed])
        if wanted != self._last_texts[0]:  # they change once a second, with the date
            self._last_texts = wanted, _texts(wanted)
        self._headers = self._last_texts[1]
        return chunked

    def on_body(self, piece: bytes) -> None:
        """Add a piece of the body."""
        if self.complete:
            return
        self.size += len(piece)
        self._idle = 0
        if self.size > self._max_body:
            self._refuse(self._too_long())
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """End the answer, unless it was an interim one."""
        if self._in_body and not self.complete:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

    def _refuse(self, problem: TransportError) -> None:
        """Stop parsing, and keep the problem: httptools turns what a callback raises into an error of its own."""
        self._problem = problem
        raise problem

    def _too_long(self) -> AnswerTooLongError:
        return too_long(self._max_body)


def _texts(fields: list[tuple[str, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in fields:
        if name not in found and value.isascii() and (text := value.decode()).isprintable():
            found[name] = text
    return found


def too_long(limit: int) -> AnswerTooLongError:
    """Return the error for an answer over the limit."""
    return AnswerTooLongError(f"the answer is longer than MAX_RESPONSE_BYTES={limit}")


def _not_http(what: str) -> ConnectionFailedError:
    return ConnectionFailedError(f"the answer is not valid HTTP: {what}")
