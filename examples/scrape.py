"""Scraping with limits: of time and size, of requests to one site at a time, and of where it may go at all.

Needs aiohttp 3.12 or newer, which lets it look at the address of each connection.
"""

import asyncio
import ipaddress
import os
import socket
from collections import defaultdict
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import aiohttp
from msgspec import Meta

from avtomatika_worker import InvalidInputError, PermanentError, SecurityError, TaskContext, TransientError, Worker

worker = Worker(worker_type="scraper", max_concurrent_tasks=20)  # they wait more than they compute

AGENT = "example-scraper/1.0 (+https://example.org/bot)"  # say who you are, and where one can complain
MOST_BYTES = 2 * 2**20
MOST_LINKS = 500
PAUSE = float(os.environ.get("SCRAPE_PAUSE", "1"))  # seconds between two requests to a site
PRIVATE = os.environ.get("SCRAPE_PRIVATE") == "1"  # whether addresses that are not public may be asked


@dataclass
class Page:
    url: str
    title: str
    links: list[str] = field(default_factory=list)


@worker.skill(category="web", timeout=60)
async def scrape(url: Annotated[str, Meta(pattern="^https?://", max_length=2000)], ctx: TaskContext) -> Page:
    """Return the title and the links of a page."""
    timeout = aiohttp.ClientTimeout(total=30, sock_connect=5)
    connector = aiohttp.TCPConnector(socket_factory=public_socket)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers={"User-Agent": AGENT}) as session:
        try:
            if not await allowed(url, session):
                raise PermanentError(f"robots.txt of {urlsplit(url).netloc} forbids it")
            ctx.send_progress(0.5, "robots.txt allows it")
            final_url, text = await fetch(url, session)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPublicError):
                raise SecurityError(f"{url}: {error.os_error}") from error
            raise TransientError(f"{url}: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransientError(f"{url}: {error or 'timeout'}") from error
    parser = PageParser(final_url)
    parser.feed(text)
    return Page(final_url, " ".join("".join(parser.title).split()), list(dict.fromkeys(parser.links))[:MOST_LINKS])


async def fetch(url: str, session: aiohttp.ClientSession) -> tuple[str, str]:
    """Return where a page was found, after redirects, and its text."""
    async with turns[urlsplit(url).netloc], session.get(url, max_redirects=5) as answer:
        if answer.status == 429 or answer.status >= 500:
            raise TransientError(f"{url}: HTTP {answer.status}")
        if answer.status != 200:
            raise InvalidInputError(f"{url}: HTTP {answer.status}", {"status": answer.status})
        if answer.content_type not in {"text/html", "text/plain", "application/xhtml+xml"}:
            raise InvalidInputError(f"{url} is {answer.content_type}, not a page")
        # Read piece by piece: what a server says of its length, and what it sends compressed, is no limit.
        content = bytearray()
        async for piece in answer.content.iter_chunked(2**16):
            content += piece
            if len(content) > MOST_BYTES:
                raise InvalidInputError(f"{url} is larger than {MOST_BYTES} bytes")
        try:
            return str(answer.url), content.decode(answer.get_encoding(), errors="replace")
        except (LookupError, RuntimeError):  # an encoding that nobody knows
            return str(answer.url), content.decode(errors="replace")


async def allowed(url: str, session: aiohttp.ClientSession) -> bool:
    try:
        _, text = await fetch(urljoin(url, "/robots.txt"), session)
    except InvalidInputError:  # there is none
        return True
    robots = RobotFileParser()
    robots.parse(text.splitlines())
    return robots.can_fetch(AGENT, url)


class Turn:
    """One request at a time to a site, and a pause after each. One process has one of these for each site."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().call_later(PAUSE, self._lock.release)  # nobody waits who has no need to


turns: defaultdict[str, Turn] = defaultdict(Turn)


class NotPublicError(OSError):
    """An address that strangers' URLs must not lead to."""


def public_socket(address: Any) -> socket.socket:
    """Make the socket for a connection: here the name has been looked up, and no redirect gets by."""
    family, kind, protocol, _, (host, *_) = address
    if not (PRIVATE or ipaddress.ip_address(host.partition("%")[0]).is_global):
        raise NotPublicError(f"{host} is not a public address")
    return socket.socket(family, kind, protocol)


class PageParser(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._in_title = False
        self.title: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title" and not self.title
        if tag == "a" and (href := dict(attrs).get("href")):
            link = urljoin(self._url, href).partition("#")[0]
            if link.startswith(("http://", "https://")):
                self.links.append(link)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - HTMLParser's name for it
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)


if __name__ == "__main__":
    worker.run()
