"""Strict parsing of HTTP heads, with one reading or none, for the proxy in front of stores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from avtomatika_worker.files.egress_route import Authority

_STATUS_LINE: Final = re.compile(r"HTTP/1\.[01] ([0-9]{3})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)")
_NUMBER: Final = re.compile("[0-9]{1,19}")
_BODILESS: Final = frozenset({204, 304})
_HOP: Final = frozenset({"proxy-authorization", "proxy-connection"})


class Request(msgspec.Struct, frozen=True):
    """The head of a request, as received by a proxy."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:  # headers hold signatures, and the key of a route
        return f"Request(method={self.method!r})"

    @property
    def by_name(self) -> dict[str, str]:
        """The headers by lower-case name, the last of each."""
        return {name.lower(): value for name, value in self.headers}

    @property
    def is_tunnel(self) -> bool:
        """Whether it requests a connection rather than an answer."""
        return self.method == "CONNECT"

    @property
    def authority(self) -> Authority:
        """The target host. Raises ValueError."""
        parts = urlsplit(f"//{self.target}" if self.is_tunnel else self.target)
        if not parts.hostname or parts.scheme not in ({""} if self.is_tunnel else {"http"}):
            raise ValueError("the target of a request is not an http:// URL")
        return parts.hostname, parts.port or (443 if self.is_tunnel else 80)

    @property
    def length(self) -> int:
        """The body's size in bytes. Raises ValueError."""
        named = self.by_name
        if "transfer-encoding" in named:
            raise ValueError("a request has a transfer encoding")
        text = named.get("content-length", "0")
        if not (text.isascii() and text.isdecimal()):
            raise ValueError("a request has no length")
        return int(text)

    def head(self, more: Mapping[str, str] | None) -> bytes:
        """Return the head for the next hop: an origin, or another proxy, which gets ``more`` headers."""
        parts = urlsplit(self.target)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        kept = [f"{name}: {value}" for name, value in self.headers if name.lower() not in _HOP]
        added = [f"{name}: {value}" for name, value in (more or {}).items()]
        target = path if more is None else self.target
        return "\r\n".join((f"{self.method} {target} HTTP/1.1", *kept, *added, "", "")).encode("latin-1")


def parse_request(head: bytes) -> Request:
    """Parse a head. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ")
    headers = [line.partition(":") for line in lines if line]
    return Request(method, target, tuple((name.strip(), value.strip()) for name, _, value in headers))


class Answer(msgspec.Struct, frozen=True):
    """The head of an answer. ``length``: the body's size in bytes, None if only the connection's end shows it."""

    status: int
    length: int | None
    head: bytes


def parse_answer(head: bytes, method: str) -> Answer:
    """Parse the head of an answer and rewrite it, so that obstore reads exactly what was checked.

    Raises ValueError for an invalid or ambiguous head.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None or int(found[1]) < 200:
        raise ValueError("not a final HTTP/1.1 answer")
    status = int(found[1])
    fields = [_field(line) for line in lines]
    announced = _announced_length(fields)
    length = 0 if method == "HEAD" or status in _BODILESS else announced
    if length is None:
        # Its end is not looked for: without another request on this connection, nothing can follow that counts.
        fields = [*((name, value) for name, value in fields if name != "connection"), ("connection", "close")]
    written = [f"HTTP/1.1 {status} {found[2] or ''}", *(f"{name}: {value}" for name, value in fields)]
    return Answer(status, length, "\r\n".join(written).encode("latin-1"))


def _field(line: str) -> tuple[str, str]:
    header = _HEADER.fullmatch(line)
    if header is None:
        raise ValueError("a line of the head is not a header")
    return header[1].lower(), header[2]


def _announced_length(fields: Sequence[tuple[str, str]]) -> int | None:
    """Return the length that a head announces; None where it announces none, or chunks."""
    lengths = [value for name, value in fields if name == "content-length"]
    encodings = [value.lower() for name, value in fields if name == "transfer-encoding"]
    if (
        len(lengths) + len(encodings) > 1
        or encodings not in ([], ["chunked"])
        or not all(map(_NUMBER.fullmatch, lengths))
    ):
        raise ValueError("an answer with several lengths, or one that is not a number")
    return int(lengths[0]) if lengths else None
