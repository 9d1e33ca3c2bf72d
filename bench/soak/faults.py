"""Twelve ways in which a call breaks, dealt from a shuffled deck so that none is left out."""

from __future__ import annotations

import asyncio
import random
from typing import Final, Literal

from avtomatika_worker.protocol.dialects import NEWEST

Kind = Literal[
    "reset_before",
    "reset_after",
    "silence",
    "cut_head",
    "cut_body",
    "wrong_length",
    "garbage",
    "redirect_302",
    "error_500",
    "unavailable_503",
    "limited_429",
    "portal_page",
]
KINDS: Final[dict[Kind, str]] = {
    "reset_before": "the connection is reset before the request is looked at",
    "reset_after": "the request is processed, the connection is reset in the answer's place",
    "silence": "the request is processed and never answered",
    "cut_head": "the request is processed, its answer ends within the head",
    "cut_body": "the request is processed, its answer ends within the body",
    "wrong_length": "the request is processed, its answer says that it is longer than it is",
    "garbage": "the request is processed, the answer is no HTTP",
    "redirect_302": "a proxy redirects to a login page",
    "error_500": "the orchestrator fails before it processes the request",
    "unavailable_503": "a proxy is overloaded, and says when to come again",
    "limited_429": "the orchestrator limits the rate, and says when to come again",
    "portal_page": "a captive portal answers 200 with a page",
}
_VERSION: Final = b"VERSION"
_PAGE: Final = b"<!doctype html><title>Welcome</title><p>Please accept our terms.</p>" * 20
_UNPROCESSED: Final[dict[Kind, bytes]] = {
    "reset_before": b"",
    "redirect_302": b"HTTP/1.1 302 Found\r\nLocation: https://portal.invalid/login\r\nContent-Length: 0\r\n\r\n",
    "error_500": b"HTTP/1.1 500 Internal Server Error\r\nX-RXON-Version: VERSION\r\nContent-Length: 0\r\n\r\n",
    "unavailable_503": b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    "limited_429": b"HTTP/1.1 429 Too Many Requests\r\nX-RXON-Version: VERSION\r\n"
    b"Retry-After: 1\r\nContent-Length: 0\r\n\r\n",
    "portal_page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE),
}
_KEEPS_CONNECTION: Final = frozenset(_UNPROCESSED) - {"reset_before"}


def processed(kind: Kind) -> bool:
    """Return whether the request takes effect although its answer is broken."""
    return kind not in _UNPROCESSED


class Deck:
    """Decides which call breaks and how: ``share`` of them, in all ways in turn, in a random order.

    ``dealt`` faults have been there before, of other runs with this seed: the deck goes on where they ended.
    """

    def __init__(self, seed: int, share: float, dealt: int) -> None:
        self._order = random.Random(f"{seed}/deck")
        self._chance = random.Random(f"{seed}/broken/{dealt}")
        self._share = share
        self._left: list[Kind] = []
        for _ in range(dealt):
            self._card()

    def deal(self) -> Kind | None:
        """Return how the next call breaks, None when it does not."""
        return self._card() if self._chance.random() < self._share else None

    def _card(self) -> Kind:
        if not self._left:
            self._left = list(KINDS)
            self._order.shuffle(self._left)
        return self._left.pop()


async def answer_broken(
    kind: Kind,
    answer: bytes,
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    hold: float,
    noise: bytes,
    version: str = NEWEST.version,
) -> bool:
    """Answer in that way, where ``answer`` is the right one; return whether the connection can go on.

    ``hold``: seconds for which a silent orchestrator keeps the connection open, unless the client closes it.
    ``version`` is what the orchestrator's own refusals announce.
    """
    reader, writer = streams
    if kind == "silence":
        await closed_by_client(reader, hold)
    else:
        writer.write(_broken(kind, answer, noise, version))
        await writer.drain()
    if kind in _KEEPS_CONNECTION:
        return True
    if kind in {"reset_before", "reset_after", "silence"}:
        writer.transport.abort()
    return False


def _broken(kind: Kind, answer: bytes, noise: bytes, version: str) -> bytes:
    if kind in _UNPROCESSED:
        return _UNPROCESSED[kind].replace(_VERSION, version.encode())
    head_ends = answer.index(b"\r\n\r\n") + 4
    body = len(answer) - head_ends
    match kind:
        case "cut_head":
            return answer[: head_ends // 2]
        case "cut_body":
            # An answer without a body has nothing to cut there.
            return answer[: head_ends + body // 2] if body else answer[: head_ends - 2]
        case "wrong_length":
            length = b"Content-Length: %d\r\n" % body
            return answer.replace(length, b"Content-Length: %d\r\n" % (body + 10)) if body else answer[: head_ends - 3]
        case "garbage":
            return noise
        case _:
            return b""


async def closed_by_client(reader: asyncio.StreamReader, limit: float) -> bool:
    """Wait until the client closes the connection, for ``limit`` seconds; return whether it did."""
    try:
        async with asyncio.timeout(limit):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
