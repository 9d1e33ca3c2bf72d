"""Files from web hosts, over HTTPS: only from hosts that the worker's settings list.

aiohttp follows no redirect here, reads no proxy and no credentials from the environment, keeps no cookies and unpacks
nothing. It connects to the addresses that were checked: a host's name is not looked up a second time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from avtomatika_worker.errors import (
    DependencyError,
    InvalidInputError,
    SourceRefusedError,
    TaskError,
    TransientError,
    UnsafeNameError,
)
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.names import check_part
from avtomatika_worker.files.objects import Expect, ObjectInfo
from avtomatika_worker.files.permit import Permit
from avtomatika_worker.protocol.uris import for_messages

if TYPE_CHECKING:
    import aiohttp

_HEAD_TIMEOUT: Final = 60.0
"""Seconds until the head of an answer must be there."""

_READ_TIMEOUT: Final = 60.0
"""Seconds between two pieces of a body."""

_TOTAL_TIMEOUT: Final = 3600.0
"""Seconds for one file: a body may come in drops without end."""

_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that may be fetched. ``shown`` is the part for messages: a query may be a signature."""

    url: str
    shown: str
    name: str
    private: bool
    """Whether the host may be at an address that is not public."""


class WebHosts:
    """The hosts that tasks may fetch files from, each ``host`` or ``host:port``, and what may be fetched.

    ``private``: those that may be at addresses that are not public; they need not be listed twice.
    """

    def __init__(self, hosts: Sequence[str], private: Sequence[str]) -> None:
        self._private = frozenset(map(_authority, private))
        self._hosts = frozenset(map(_authority, hosts)) | self._private

    def check(self, text: str) -> Address:
        """Return a URL as one that may be fetched. Raises `SourceRefusedError` and `UnsafeNameError`."""
        from yarl import URL  # aiohttp's own: what is checked is what is asked

        shown = for_messages(text)
        if not all("!" <= character <= "~" and character not in '\\"<>^`{|}' for character in text):
            raise UnsafeNameError(shown, "a URL has no spaces and no such characters; percent-encode them")
        try:
            url = URL(text, encoded=True)
            host, port = (url.host or "").lower(), url.port or 443
        except (ValueError, IndexError):  # the latter for "https://host[]@"
            raise UnsafeNameError(shown, "it is not a URL") from None
        if url.scheme != "https" or not host or url.user is not None or url.password is not None or url.raw_fragment:
            raise UnsafeNameError(shown, "it should be https://host/path, without a user, a password or a fragment")
        if (host, port) not in self._hosts:
            allowed = ", ".join(sorted(_written(each) for each in self._hosts)) or "no web host"
            raise SourceRefusedError(shown, f"a task may fetch from {allowed} (WORKER_FILE_HOSTS lists them)")
        return Address(text, shown, _name(url.raw_path, shown), (host, port) in self._private)


class Web:
    """Fetches files. ``ca_path``: further certificate authorities to trust."""

    def __init__(self, hosts: WebHosts, disk: Disk, ca_path: Path | None) -> None:
        self._hosts = hosts
        self._disk = disk
        self._ca_path = ca_path
        self._tls: ssl.SSLContext | None = None

    def check(self, url: str) -> Address:
        """Return a URL as one that may be fetched. Raises `SourceRefusedError` and `UnsafeNameError`."""
        return self._hosts.check(url)

    async def fetch(self, address: Address, file: IO[bytes], permit: Permit, expect: Expect) -> int:
        """Write what is at an address to ``file``, as far as the task's permit goes; return its size.

        Raises a `TaskError`.
        """
        async with self._answer(address) as answer:
            _check_answer(address, answer)
            etag, announced = answer.headers.get("ETag"), answer.content_length
            permit.take(address.shown, announced or 0)
            if announced is not None:
                expect(ObjectInfo(announced, etag))
            size = 0
            async for piece in answer.content.iter_chunked(_PIECE):
                size += len(piece)
                if announced is None:
                    permit.take(address.shown, len(piece), 0)
                await self._disk.run(file.write, piece)
            if announced is None:
                expect(ObjectInfo(size, etag))
            return size

    @asynccontextmanager
    async def _answer(self, address: Address) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Ask for what is at an address. aiohttp's errors become ours: its own name addresses."""
        import aiohttp
        from yarl import URL

        from avtomatika_worker.files.web_resolver import PublicResolver, refuse_private

        if self._tls is None:
            self._tls = await self._disk.run(self._context)
        try:
            if not address.private:
                refuse_private(URL(address.url, encoded=True).host or "")  # which is not looked up if it is an address
            connector = aiohttp.TCPConnector(
                ssl=self._tls, resolver=PublicResolver(private=address.private), use_dns_cache=False
            )
            timeout = aiohttp.ClientTimeout(total=_TOTAL_TIMEOUT, sock_read=_READ_TIMEOUT)
            async with aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "avtomatika-worker"},
            ) as session:
                async with asyncio.timeout(_HEAD_TIMEOUT):
                    answer = await session.get(URL(address.url, encoded=True), allow_redirects=False)
                async with answer:
                    yield answer
        except TaskError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _reported(address, error) from None

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_path is not None:
            context.load_verify_locations(self._ca_path)
        return context


def _authority(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    return (parts.hostname or "").lower(), parts.port or 443


def _written(authority: tuple[str, int]) -> str:
    host, port = authority
    return host if port == 443 else f"{host}:{port}"


def _name(path: str, shown: str) -> str:
    """Return what to call the file: the last segment of the path. Raises `UnsafeNameError`."""
    name = unquote(path.rstrip("/").rpartition("/")[2]) or "download"
    if "/" in name or "\\" in name:
        raise UnsafeNameError(shown, "its last segment stands for a path when decoded")
    return check_part(name, shown)


def _check_answer(address: Address, answer: aiohttp.ClientResponse) -> None:
    """Raise a `TaskError` for an answer that is not the file as it is."""
    status, facts = answer.status, {"uri": address.shown[:300], "status": answer.status}
    if status in {404, 410}:
        raise InvalidInputError(f"{address.shown:.300}: there is no such file", facts)
    if status in {408, 425, 429} or status >= 500:
        raise TransientError(f"{address.shown:.300}: the host answers {status}", facts)
    if 300 <= status < 400:
        raise DependencyError(f"{address.shown:.300}: the host redirects, which is not followed", facts)
    if status != 200:
        raise DependencyError(f"{address.shown:.300}: the host answers {status}", facts)
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DependencyError(f"{address.shown:.300}: the host sends the file compressed, unasked", facts)


def _reported(address: Address, error: Exception) -> TaskError:
    """Return the task's failure for an error of the connection, without addresses and queries."""
    import aiohttp

    from avtomatika_worker.files.web_resolver import PrivateAddressError

    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    facts = {"uri": address.shown[:300]}
    if isinstance(cause, PrivateAddressError):
        text = "its host is at an address that is not public (WORKER_FILE_PRIVATE_HOSTS lists those that may be)"
        return SourceRefusedError(address.shown, text)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return DependencyError(f"{address.shown:.300}: the host's certificate is not trusted", facts)
    if isinstance(error, TimeoutError):
        return TransientError(f"{address.shown:.300}: the host does not answer in time", facts)
    return TransientError(f"{address.shown:.300}: the file cannot be fetched: {type(error).__name__}", facts)
