"""The built site, in a browser: anybody can read it, and it finds what one looks for."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from devserver.browser import browser
from docs.blocks import ROOT
from needs import needs

pytestmark = [needs("axe_playwright_python", "mkdocs"), pytest.mark.timeout(300)]

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
"""Pages that have every kind of thing: they are looked at from top to bottom, light and dark."""

ALL: dict[str, list[list[str]]] = {"exclude": []}
CONTENT = {"exclude": [[".md-header"], [".md-tabs"], [".md-sidebar"], [".md-footer"]]}
"""What is the same on all pages is looked at on a few."""

FINDINGS = """
async ([context, only, without]) => {
    const rules = Object.fromEntries(without.map(each => [each, {enabled: false}]));
    const options = {resultTypes: ["violations"], rules, ...(only ? {runOnly: only} : {})};
    const found = await axe.run({include: ["html"], ...context}, options);
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


async def findings(
    page: Page,
    script: str,
    context: dict[str, list[list[str]]],
    *,
    only: list[str] | None = None,
    without: Sequence[str] = (),
) -> list[str]:
    """Return what axe finds on a page."""
    await page.evaluate(script)
    return await page.evaluate(FINDINGS, [context, only, list(without)])


@pytest.mark.timeout(1200)  # a second a page, ten for the longest, and much more on a busy machine
async def test_axe_finds_nothing_on_any_page(site):
    script, found = axe_script(), {}
    async with browser() as chromium:
        context = await chromium.new_context(color_scheme="light", viewport={"width": 1440, "height": 900})
        page = await context.new_page()
        for path in site.pages():
            await page.goto(f"{site.url}/{path}")
            # Contrast takes half a minute on the longest pages, which are generated, and colored like all others.
            without = ["color-contrast"] if path.startswith("reference/") else []
            found[path] = await findings(page, script, ALL if path in WHOLE else CONTENT, without=without)
    assert len(found) > 40
    assert {path: lines[:3] for path, lines in found.items() if lines} == {}


async def test_dark_pages_have_enough_contrast(site):
    script, found = axe_script(), {}
    async with browser() as chromium:
        context = await chromium.new_context(color_scheme="dark", viewport={"width": 1440, "height": 900})
        page = await context.new_page()
        for path in WHOLE:
            await page.goto(f"{site.url}/{path}")
            found[path] = await findings(page, script, ALL, only=["color-contrast"])
    assert {path: lines[:3] for path, lines in found.items() if lines} == {}


async def test_search_finds_what_people_look_for(site):
    async with browser() as chromium:
        page = await chromium.new_page()
        page.set_default_timeout(120_000)  # it makes its index from all pages at once, however busy the machine is
        for word, wanted in SEARCHED.items():
            await page.goto(f"{site.url}/")
            await page.get_by_role("textbox", name="Search").fill(word)
            results = page.locator(".md-search-result__item > .md-search-result__link")
            await results.first.wait_for(state="attached")
            links = [await each.get_attribute("href") for each in await results.all()]
            assert any(wanted in str(link) for link in links[:FIRST_RESULTS]), f"{word}: {links}"


async def test_a_command_is_copied_without_its_prompt_and_output(site):
    async with browser() as chromium:
        context = await chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        await page.goto(f"{site.url}/quickstart/")
        block = page.locator("div.highlight", has_text="worker call").first
        await block.locator("button[data-clipboard-target]").click()
        copied = await page.evaluate("() => navigator.clipboard.readText()")
    assert copied.strip() == ("""worker call resize '{"url": "cat.jpg", "width": 100, "height": 50}'""")


def test_each_error_has_an_anchor_of_its_own(site):
    page = (site.directory / "errors" / "index.html").read_text("utf-8")
    anchors = re.findall(r'<tr id="([^"]+)">', page)
    rows = [line for line in (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    assert len(anchors) == len(set(anchors)) == len(rows)
    assert all(f'href="#{anchor}"' in page for anchor in anchors)


def test_the_site_asks_nobody_else_for_anything(site):
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
