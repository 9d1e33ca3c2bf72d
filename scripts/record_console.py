"""Record the moving picture of the console in README.md: a form, a stream, its result, and a failure with its line.

    python scripts/record_console.py [FILE]

Needs what the console's tests need: Playwright, a Chromium on the PATH or in CHROMIUM, and Pillow.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.async_api import Page, ViewportSize

from take_console_picture import ROOT, opened, served

TARGET: Final = ROOT / "docs" / "images" / "console.webp"
WIDTH: Final = 1000
FRAME: Final = 0.2
"""Seconds between two frames."""

LAST: Final = 5_000
"""Milliseconds that the last frame stays."""

TYPING: Final = 90
"""Milliseconds between two keys."""

READING: Final = 1.5
"""Seconds for which something stays to be read."""

SIZE: Final[ViewportSize] = {"width": 1180, "height": 720}


async def record(url: str, file: Path) -> None:
    """Record the console at ``url`` while somebody uses it."""
    shots: list[bytes] = []
    async with opened(url, SIZE, tasks=()) as page:
        async with asyncio.TaskGroup() as group:
            used = group.create_task(use(page))
            while not used.done():
                shots.append(await page.screenshot())
                await asyncio.wait({used}, timeout=FRAME)
        shots.append(await settled(page))
    write(shots, file)


async def use(page: Page) -> None:
    """Run a skill that streams and one that fails, at the pace of somebody who reads."""
    await page.get_by_role("button", name=re.compile("^write_story")).click()
    await page.get_by_label("who").press_sequentially("a small robot", delay=TYPING)
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.locator(".details .badge", has_text="done").wait_for()
    await asyncio.sleep(READING)
    await page.get_by_role("tab", name="Output").click()
    await asyncio.sleep(READING)
    await page.get_by_role("button", name=re.compile("^split_bill")).click()
    await page.get_by_label("total").press_sequentially("84.60", delay=TYPING)
    await page.get_by_label("people").press_sequentially("0", delay=TYPING)
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.get_by_text("It is not retried any more").wait_for()


async def settled(page: Page) -> bytes:
    """Return the page as it is at the end."""
    await asyncio.sleep(FRAME)
    return await page.screenshot()


def write(shots: list[bytes], file: Path) -> None:
    """Write the frames that differ from the one before, smaller, each for as long as it was to be seen."""
    frames: list[Image.Image] = []
    durations: list[int] = []
    for before, shot in zip([b"", *shots], shots, strict=False):
        if shot == before:
            durations[-1] += round(FRAME * 1000)
            continue
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        frames.append(picture.resize((WIDTH, round(picture.height * WIDTH / picture.width))))
        durations.append(round(FRAME * 1000))
    durations[-1] = LAST
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80, method=6)


async def main(target: Path) -> None:
    """Record the skills of `studio.py`, from a directory whose name anybody may see in the traceback."""
    with tempfile.TemporaryDirectory(prefix="studio-") as directory:
        shutil.copy(Path(__file__).with_name("studio.py"), directory)
        await served(lambda url: record(url, target), "studio:worker", Path(directory))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
