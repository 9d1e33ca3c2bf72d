import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

import scrape
from avtomatika_worker.testing import WorkerHarness

PAGE = (
    '<title>A  small\n shop</title><svg><title>no</title></svg><a href="/tea#top">Tea</a><a href="mailto:a@b">Mail</a>'
)


@dataclass
class Site:
    url: str = ""
    robots: str = ""
    at_once: int = 0
    most_at_once: int = 0
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0.01)
            return await self.page(request)
        finally:
            self.at_once -= 1

    async def page(self, request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/robots.txt":
                return web.Response(text=self.robots) if self.robots else web.Response(status=404)
            case "/large":
                return web.Response(text="x" * (scrape.MOST_BYTES + 1), content_type="text/html")
            case "/moved":
                raise web.HTTPFound("/shop")
            case "/picture":
                return web.Response(body=b"x", content_type="image/png")
            case "/busy":
                return web.Response(status=429)
            case "/gone":
                return web.Response(status=410)
        return web.Response(text=PAGE, content_type="text/html")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", site.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


@pytest.fixture
async def h(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerHarness]:
    """The site of the tests is not public; the pause between requests is a short one."""
    monkeypatch.setattr(scrape, "PRIVATE", True)
    monkeypatch.setattr(scrape, "PAUSE", 0.01)
    scrape.turns.clear()
    async with WorkerHarness(scrape.worker) as h:
        yield h


async def test_a_page_has_a_title_and_links_wherever_it_was_found(h, site):
    result = await h.run("scrape", {"url": f"{site.url}/moved"})
    assert result.data == {"url": f"{site.url}/shop", "title": "A small shop", "links": [f"{site.url}/tea"]}


async def test_a_site_gets_one_request_at_a_time(h, site):
    tasks = [h.submit("scrape", {"url": f"{site.url}/{number}"}) for number in range(5)]
    assert all([(await task.result()).ok for task in tasks])
    assert len(site.asked) == 10
    assert site.most_at_once == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/large", "INVALID_INPUT_ERROR"),
        ("/picture", "INVALID_INPUT_ERROR"),
        ("/gone", "INVALID_INPUT_ERROR"),
        ("/busy", "TRANSIENT_ERROR"),
    ],
)
async def test_what_cannot_be_read_says_whether_to_try_again(h, site, path, code):
    result = await h.run("scrape", {"url": site.url + path})
    assert result.error.code == code


async def test_robots_txt_is_obeyed(h, site):
    site.robots = "User-agent: *\nDisallow: /private"
    assert (await h.run("scrape", {"url": f"{site.url}/private/x"})).error.code == "PERMANENT_ERROR"
    assert (await h.run("scrape", {"url": f"{site.url}/shop"})).ok
    assert "/private/x" not in site.asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"])
async def test_no_url_leads_into_the_network_that_the_worker_is_in(h, site, monkeypatch, host):
    monkeypatch.setattr(scrape, "PRIVATE", False)
    port = site.url.rpartition(":")[2]
    result = await h.run("scrape", {"url": f"http://{host}:{port}/"})
    assert result.error.code == "SECURITY_ERROR"
    assert site.asked == []


async def test_only_urls_of_the_web_are_taken(h):
    assert (await h.run("scrape", {"url": "ftp://example.org/"})).error.code == "INVALID_INPUT_ERROR"
