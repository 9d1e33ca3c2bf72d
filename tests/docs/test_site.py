"""The built site, in a browser: anybody can read it, and it finds what one looks for."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser
from playwright.async_api import TimeoutError as NotYetError

from devserver.browser import browser
from docs.blocks import ROOT
from needs import needs

pytestmark = [needs("axe_playwright_python", "mkdocs"), pytest.mark.timeout(300)]
in_the_browser = pytest.mark.asyncio(loop_scope="module")

SEARCHED = {
    "retry": "explanation/retries/",
    "batch": "guide/batching/",
    "stuck": "howto/stuck-tasks/",
    "celery": "compared/",
    "checkpoint": "howto/checkpoints/",
}
"""A word that people look for → a page that has to be among the first results."""

FIRST_RESULTS = 5
WHOLE = ("", "execution", "tutorial/2-params-and-results", "checklist", "what-is-avtomatika", "compared")
"""Pages that are looked at from top to bottom: what stands around the content is the same on all."""

GENERATED = "reference/"
"""Its pages are the longest, and have elements of their own."""

TABS = 2

ALL: dict[str, list[list[str]]] = {"exclude": []}
CONTENT = {"exclude": [[".md-header"], [".md-tabs"], [".md-sidebar"], [".md-footer"]]}

FINDINGS = """
async ([context, contrast]) => {
    const options = contrast ? {runOnly: ["color-contrast"]} : {rules: {"color-contrast": {enabled: false}}};
    const found = await axe.run({include: ["html"], ...context}, {resultTypes: ["violations"], ...options});
    return found.violations.flatMap(
        each => each.nodes.map(node => `${each.id}: ${node.html.slice(0, 150)} (${node.failureSummary})`));
}
"""


@dataclass(frozen=True)
class Site:
    """The built site, and where it is served."""

    directory: Path
    url: str

    def pages(self) -> list[str]:
        """Return the addresses of the pages, from the root."""
        found = sorted(path.relative_to(self.directory) for path in self.directory.rglob("index.html"))
        return [path.parent.as_posix().removeprefix(".") for path in found]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield Site(directory, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


def axe_script() -> str:
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


async def findings(
    chromium: Browser, site: Site, paths: Iterable[str], *, scheme: str, contrast: bool
) -> dict[str, list[str]]:
    """Return what axe finds on pages: of their colors, or of all else."""
    script, found, waiting = axe_script(), {}, iter(paths)

    async def look() -> None:
        """In a context of its own, which is a process of its own."""
        context = await chromium.new_context(color_scheme=scheme, viewport={"width": 1440, "height": 900})
        page = await context.new_page()
        for path in waiting:
            await page.goto(f"{site.url}/{path}")
            await page.evaluate(script)
            found[path] = await page.evaluate(FINDINGS, [ALL if path in WHOLE else CONTENT, contrast])
        await context.close()

    async with asyncio.TaskGroup() as tabs:
        for _ in range(TABS):
            tabs.create_task(look())
    return found


Kind = tuple[str, ...]
"""An element's name and classes."""


class Kinds(HTMLParser):
    """Finds which kinds of elements are in which within the content of a page: what their colors depend on."""

    EMPTY = frozenset({"br", "circle", "col", "hr", "img", "input", "line", "meta", "path", "rect", "use", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[Kind, Kind]] = set()
        self._open: list[Kind] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._open and tag != "article":
            return
        kind = (tag, *sorted((dict(attrs).get("class") or "").split()))
        self.found.add((self._open[-1] if self._open else (), kind))
        if tag not in self.EMPTY:
            self._open.append(kind)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass


def showing_all_kinds(site: Site) -> list[str]:
    """Return pages that together have each element of any page in each surrounding: axe takes long for contrast."""
    kinds = {
        path: Kinds((site.directory / path / "index.html").read_text("utf-8")).found
        for path in site.pages()
        if not path.startswith(GENERATED)
    }
    chosen, left = list(WHOLE), set[tuple[Kind, Kind]]().union(*kinds.values())
    for path in WHOLE:
        left -= kinds[path]
    while left:
        chosen.append(max(kinds, key=lambda path: len(kinds[path] & left)))
        left -= kinds[chosen[-1]]
    return chosen


@pytest.mark.timeout(1200)  # a second a page, and much more on a busy machine
@in_the_browser
async def test_axe_finds_nothing_on_any_page(site, chromium):
    found = await findings(chromium, site, site.pages(), scheme="light", contrast=False)
    assert len(found) > 40
    assert {path: lines[:3] for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@in_the_browser
async def test_everything_has_enough_contrast(site, chromium, scheme):
    paths = showing_all_kinds(site)
    found = await findings(chromium, site, paths, scheme=scheme, contrast=True)
    assert found.keys() == set(paths)
    assert {path: lines[:3] for path, lines in found.items() if lines} == {}


@in_the_browser
async def test_search_finds_what_people_look_for(site, chromium):
    async with await chromium.new_page() as page:
        for word, wanted in SEARCHED.items():
            await page.goto(f"{site.url}/")
            box = page.get_by_role("textbox", name="Search")
            results = page.locator(".md-search-result__item > .md-search-result__link")
            async with asyncio.timeout(120):  # it makes its index from all pages at once, however busy the machine is
                while not await results.count():  # what is typed before the page listens is not searched for
                    await box.fill("")
                    await box.press_sequentially(word)  # it listens to keys
                    with suppress(NotYetError):
                        await results.first.wait_for(state="attached", timeout=5_000)
            links = [await each.get_attribute("href") for each in await results.all()]
            assert any(wanted in str(link) for link in links[:FIRST_RESULTS]), f"{word}: {links}"


@in_the_browser
async def test_a_command_is_copied_without_its_prompt_and_output(site, chromium):
    async with await chromium.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = await context.new_page()
        await page.goto(f"{site.url}/quickstart/")
        block = page.locator("div.highlight", has_text="worker call").first
        await block.locator("button[data-clipboard-target]").click()
        copied = await page.evaluate("() => navigator.clipboard.readText()")
    assert copied.strip() == ("""worker call resize '{"url": "cat.jpg", "width": 100, "height": 50}'""")


LEFT_OVER = re.compile(r"`|\*\*|\]\(|^\s*[-*] ")
"""What only Markdown that was not understood has outside of code: a list that a table swallowed, quotes in quotes."""


class Texts(HTMLParser):
    """Collects the texts of a page's content that are not code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in Kinds.EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "article" in self._open and not {"code", "pre", "script", "style", "svg"} & set(self._open):
            self.found.append(data)


def test_no_markdown_is_left_over_on_any_page(site):
    texts = {path: Texts((site.directory / path / "index.html").read_text("utf-8")).found for path in site.pages()}
    assert all(texts.values())
    assert {
        path: found for path, each in texts.items() if (found := [text for text in each if LEFT_OVER.search(text)])
    } == {}


@pytest.mark.parametrize(("width", "scrolling"), [(1440, 0), (390, None)])
@in_the_browser
async def test_nothing_is_wider_than_the_window(site, chromium, width, scrolling):
    """Tables scroll by themselves on a phone; on a desk, even the widest one is seen whole."""
    async with await chromium.new_context(viewport={"width": width, "height": 900}) as context:
        page = await context.new_page()
        for path in (*WHOLE, "dialects", "metrics"):
            await page.goto(f"{site.url}/{path}")
            wide = await page.evaluate("() => document.documentElement.scrollWidth")
            assert (path, wide) == (path, width)
            cut = await page.locator(".md-typeset__scrollwrap").evaluate_all(
                "all => all.filter(each => each.scrollWidth > each.clientWidth).length"
            )
            assert scrolling is None or (path, cut) == (path, scrolling)


def test_each_error_has_an_anchor_of_its_own(site):
    page = (site.directory / "errors" / "index.html").read_text("utf-8")
    anchors = re.findall(r'<tr id="([^"]+)">', page)
    rows = [line for line in (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert len(anchors) == len(set(anchors)) == len(rows)
    assert all(f'href="#{anchor}"' in page for anchor in anchors)


def test_the_site_makes_no_requests_to_other_hosts(site):
    done = subprocess.run(
        [sys.executable, "scripts/check_site.py", str(site.directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_page_is_in_the_search_index(site):
    index = json.loads((site.directory / "search" / "search_index.json").read_text("utf-8"))
    indexed = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {f"{path}/".removeprefix("/") for path in site.pages()} - indexed == set()
