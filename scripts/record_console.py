"""Record the moving picture of the console in README.md: a picture is uploaded, a skill runs, its result appears.

    python scripts/record_console.py [FILE]

Needs what the console's tests need: Playwright, a Chromium on the PATH or in CHROMIUM, and Pillow.
"""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.async_api import Page

from take_console_picture import ROOT, make_thumbnail, opened, served

TARGET: Final = ROOT / "docs" / "images" / "console.webp"
WIDTH: Final = 900
FRAME: Final = 0.25
"""Seconds between two frames."""

LAST: Final = 3_000
"""Milliseconds that the last frame stays."""


async def record(url: str, file: Path) -> None:
    """Record the console at ``url`` while a thumbnail is made."""
    shots: list[bytes] = []
    async with opened(url) as page:
        async with asyncio.TaskGroup() as group:
            made = group.create_task(make_thumbnail(page))
            while not made.done():
                shots.append(await page.screenshot())
                await asyncio.wait({made}, timeout=FRAME)
        shots.append(await settled(page))
    write(shots, file)


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


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    asyncio.run(served(lambda url: record(url, target)))
