"""Finds a Chromium, and opens the console in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from needs import why_missing

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """Return the path of a Chromium; skip the test where there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"{why_missing('chromium')}; CHROMIUM may name one")
    return found


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start a Chromium without a window."""
    path = chromium()
    async with async_playwright() as playwright:
        # Containers lack what the sandbox needs; only our own page is opened.
        started = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield started
        finally:
            await started.close()


@asynccontextmanager
async def opened(browser: Browser, url: str, **context: Any) -> AsyncIterator[Page]:
    """Open a page; nothing may go wrong in it, and it may ask nobody but its own server for anything."""
    own = await browser.new_context(**{"viewport": {"width": 1500, "height": 1000}, **context})
    page = await own.new_page()
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "data:")):
            wrong.append(f"it asked for {request.url}")

    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", asked)
    page.set_default_timeout(10_000)
    await page.goto(f"{url}/")
    try:
        yield page
    finally:
        await own.close()
    assert not wrong, wrong
