"""Take the pictures of the console that README.md and docs/console.md show, with the demo's skills.

    python scripts/take_console_picture.py [FILE]

Needs what the console's tests need: Playwright, and a Chromium on the PATH or in CHROMIUM.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
from playwright.async_api import Page, ViewportSize, async_playwright

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs" / "images" / "console.png"
UPLOADED: Final = ROOT / "src" / "avtomatika_worker" / "demo_app" / "data" / "dusk.jpg"
SIZE: Final[ViewportSize] = {"width": 1360, "height": 800}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
TASKS: Final[tuple[dict[str, object], ...]] = (
    {"skill": "word_stats", "params": {"text": "To be, or not to be.", "top": 5}},
)


async def take(url: str, file: Path) -> None:
    """Write a picture of the console at ``url`` to ``file``, with some tasks."""
    async with opened(url) as page:
        await make_thumbnail(page)
        await page.screenshot(path=file)
        await page.set_viewport_size(PHONE)
        await page.emulate_media(color_scheme="dark")
        await page.locator("#tabs").get_by_role("button", name="Output").click()
        await page.screenshot(path=file.with_stem(f"{file.stem}-phone"))


@asynccontextmanager
async def opened(
    url: str, size: ViewportSize = SIZE, tasks: Sequence[dict[str, object]] = TASKS
) -> AsyncIterator[Page]:
    """Run some tasks, and open the console at ``url``."""
    async with aiohttp.ClientSession() as session:
        for task in tasks:
            async with session.post(f"{url}/api/jobs", json=task, raise_for_status=True):
                pass
    async with async_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport=size)
        await page.goto(f"{url}/console/")
        yield page
        await browser.close()


async def make_thumbnail(page: Page) -> None:
    """Upload a picture and wait for its thumbnail, which the console then shows."""
    await page.get_by_role("button", name=re.compile("^thumbnail")).first.click()
    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Upload").click()
    await (await chooser.value).set_files(UPLOADED)
    await page.get_by_text("Uploaded dusk.jpg").wait_for()
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.get_by_role("img", name="path").or_(page.locator("figure img")).first.wait_for()


async def served(
    use: Callable[[str], Awaitable[None]],
    app: str = "avtomatika_worker.demo_app.app:worker",
    directory: Path | None = None,
) -> None:
    """Serve the skills of ``app`` with `worker dev` for as long as ``use`` takes; it gets the address.

    The app is looked for in ``directory``, by default the current one.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "avtomatika_worker.cli", "dev", "--port", "0"),
        *("--app", app),
        cwd=directory,
        env={**os.environ, "WORKER_ID": "studio-1", "WORKER_PORT": "0", "MAX_CONCURRENT_TASKS": "4"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        async for line in process.stdout:
            if found := re.search(rb"Console: (\S+)/console/", line):
                await use(found[1].decode())
                break
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    asyncio.run(served(lambda url: take(url, target)))
