"""The worker whose console `record_console.py` records: a skill that streams, and one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta

from avtomatika_worker import Worker

worker: Worker = Worker(worker_type="studio")

_STORY = (
    "Once there was {who} that lived at the edge of a quiet town. Every evening it climbed the hill behind the mill, "
    "counted the lamps below, and wrote their number into a small blue book. One night there was a lamp too many."
)


@worker.skill(category="text")
async def write_story(
    who: Annotated[str, Meta(description="Whom the story is about")], pause: Annotated[float, Meta(ge=0, le=1)] = 0.08
) -> AsyncIterator[str]:
    """Write a short story, word by word."""
    for word in _STORY.format(who=who).split():
        yield f"{word} "
        await asyncio.sleep(pause)


@worker.skill(category="numbers")
async def split_bill(total: float, people: int) -> dict[str, float]:
    """Split a bill evenly."""
    return {"each": share(total, people)}


def share(total: float, people: int) -> float:
    """Return what each of them pays."""
    return round(total / people, 2)
