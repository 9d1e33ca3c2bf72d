"""Generators for processes: they are imported there by the names that they have here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from avtomatika_worker import Final, SkillBlueprint

streams = SkillBlueprint("streams")


@streams.skill(executor="process")
async def words(count: int) -> AsyncIterator[str]:
    for number in range(count):
        await asyncio.sleep(0)
        yield f"{number} "


@streams.skill(executor="process")
def words_in_turn(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"{number} "


@streams.skill(executor="process")
def blocks(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number]) * 1_000


@streams.skill(executor="process")
async def summed(count: int) -> AsyncIterator[dict[str, int] | Final[dict[str, int]]]:
    for number in range(count):
        yield {"n": number}
    yield Final({"sum": sum(range(count))})


@streams.skill(executor="process", cancel_grace=5.0)
async def endless(mark: str) -> AsyncIterator[str]:
    try:
        while True:
            yield "x"
            await asyncio.sleep(0.001)
    finally:
        await asyncio.to_thread(Path(mark).write_text, "closed", "utf-8")


@streams.skill(executor="process", cancel_grace=5.0)
def endless_in_turn(mark: str) -> Iterator[str]:
    try:
        while True:
            yield "x"
            time.sleep(0.001)
    finally:
        Path(mark).write_text("closed", "utf-8")


@streams.skill(executor="process")
def large(mark: str) -> Iterator[str]:
    for number in range(60):
        Path(mark).write_text(str(number), "utf-8")
        yield "x" * 100_000


@streams.skill(executor="process")
async def crashes() -> AsyncIterator[str]:
    yield "last words"
    os._exit(3)
