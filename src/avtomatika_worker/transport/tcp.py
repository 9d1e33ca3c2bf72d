"""Connects to whichever address of a host answers first (RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from avtomatika_worker.transport.failures import describe

_Address = tuple[socket.AddressFamily, Any]

ATTEMPT_DELAY: Final = 0.25
"""Seconds after which the next address is tried in parallel."""

_SILENT_AFTER: Final = 30  # seconds; finds a dead peer under a long poll
_PROBE_EVERY: Final = 15
_PROBES: Final = 4


async def connect(host: str, port: int) -> socket.socket:
    """Return a connected socket. Raises OSError, and UnicodeError for an invalid host name."""
    loop = asyncio.get_running_loop()
    addresses = await _addresses(loop, host, port)
    return await (_connect(loop, addresses[0]) if len(addresses) == 1 else _race(loop, addresses))


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Address]:
    """Return the addresses to try, alternating between the families."""
    try:  # an address needs no lookup, and so no thread
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    preferred = found[0][0]
    first = [(family, address) for family, _, _, _, address in found if family == preferred]
    others = [(family, address) for family, _, _, _, address in found if family != preferred]
    return [each for pair in zip_longest(first, others) for each in pair if each is not None]


async def _race(loop: asyncio.AbstractEventLoop, addresses: Sequence[_Address]) -> socket.socket:
    """Try the addresses in order: the next one starts when all so far have failed, or after `ATTEMPT_DELAY`."""
    waiting = deque(addresses)
    attempts: set[asyncio.Task[socket.socket]] = set()
    failures: list[BaseException] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(loop.create_task(_connect(loop, waiting.popleft())))
            delay = ATTEMPT_DELAY if waiting else None
            done, attempts = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                if (error := each.exception()) is None:
                    attempts |= done - {each}
                    return each.result()
                failures.append(error)
        raise _joined(failures)
    finally:
        await _give_up(attempts)


async def _give_up(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for each in attempts:
        each.cancel()
    if attempts:
        await asyncio.wait(attempts)
    for each in attempts:
        if not each.cancelled() and each.exception() is None:
            each.result().close()


def _joined(failures: Sequence[BaseException]) -> BaseException:
    """Return one error that stands for those of all addresses."""
    for each in failures:
        if not isinstance(each, OSError):
            return each
    texts = list(dict.fromkeys(describe(each) for each in failures if isinstance(each, OSError)))
    return failures[0] if len(texts) == 1 else OSError(", ".join(texts))


async def _connect(loop: asyncio.AbstractEventLoop, address: _Address) -> socket.socket:
    family, place = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _tune(sock)
        await loop.sock_connect(sock, place)
    except BaseException:
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            loop.remove_writer(sock)  # a cancelled attempt is still watched: stop that before the descriptor is reused
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": _SILENT_AFTER, "TCP_KEEPALIVE": _SILENT_AFTER, "TCP_KEEPINTVL": _PROBE_EVERY}
    for name, value in {**wanted, "TCP_KEEPCNT": _PROBES}.items():
        if (option := getattr(socket, name, None)) is not None:  # systems differ in what they offer
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
