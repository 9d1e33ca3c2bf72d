"""Skills that leave a line in a file each time that they run, and wait until a gate (another file) is there."""

import asyncio
import time
from pathlib import Path

from avtomatika_worker import SkillBlueprint, TaskContext, TransientError

PAUSE = 0.01
skills = SkillBlueprint()
in_process = SkillBlueprint()


def begin(directory: Path) -> int:
    """Leave a line, and return how many there are."""
    runs = directory / "runs"
    with runs.open("a") as file:
        file.write("run\n")
    return len(runs.read_text().splitlines())


@skills.skill
async def awaits(place: str, ctx: TaskContext) -> dict[str, int]:
    number = begin(Path(place))
    while not (Path(place) / "gate").exists():
        ctx.send_progress(0.5, "waiting")
        await asyncio.sleep(PAUSE)
    return {"run": number}


@skills.skill
def blocks(place: str, ctx: TaskContext) -> dict[str, int]:
    number = begin(Path(place))
    while not (Path(place) / "gate").exists():
        ctx.raise_if_cancelled()
        ctx.send_progress(0.5, "waiting")
        time.sleep(PAUSE)
    return {"run": number}


@in_process.skill(executor="process")
def isolated(place: str, ctx: TaskContext) -> dict[str, int]:
    return blocks(place, ctx)


@skills.skill
async def fails_once(place: str) -> dict[str, int]:
    number = begin(Path(place))
    if number == 1:
        raise TransientError("the first time never works")
    return {"run": number}


@skills.skill(on_stale="finish")
async def stubborn(place: str, ctx: TaskContext) -> dict[str, int]:
    return await awaits(place, ctx)


async def until_there(gate: Path) -> None:
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - files have no event
        await asyncio.sleep(PAUSE)


async def cling(place: str) -> dict[str, int]:
    """Go on after a cancellation until a second gate is there."""
    number = begin(Path(place))
    try:
        await until_there(Path(place) / "gate")
    except asyncio.CancelledError:
        (Path(place) / "stopping").touch()
        await until_there(Path(place) / "let go")
    return {"run": number}


@skills.skill(cancel_grace=30.0)
async def clings(place: str) -> dict[str, int]:
    return await cling(place)


@skills.skill(cancel_grace=0.05)
async def is_given_up(place: str) -> dict[str, int]:
    return await cling(place)
