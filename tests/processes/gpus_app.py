"""Skills whose processes are given devices: what each process sees, and who uses a device beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NewType

from avtomatika_worker import Batch, SkillBlueprint

SEEN = os.environ.get("CUDA_VISIBLE_DEVICES")
"""As a library reads it that is imported here."""

skills = SkillBlueprint("gpus")
Network = NewType("Network", dict[str, Any])


@skills.resource
def network() -> Network:
    """Note where it was loaded."""
    return Network({"loaded_on": os.environ.get("CUDA_VISIBLE_DEVICES")})


def wait_for(directory: Path, count: int) -> None:
    """Wait until so many are in a directory: the test's time limit ends it otherwise."""
    while len([*directory.iterdir()]) < count:
        time.sleep(0.005)


def look(meeting: str, count: int) -> dict[str, Any]:
    """Return what this process sees, once so many tasks run."""
    (Path(meeting) / str(os.getpid())).touch()
    wait_for(Path(meeting), count)
    return {"seen": SEEN, "pid": os.getpid()}


@skills.skill(executor="process", gpus=0.5)
def half(meeting: str, count: int) -> dict[str, Any]:
    return look(meeting, count)


@skills.skill(executor="process", gpus=1)
async def whole(meeting: str, count: int, network: Network) -> dict[str, Any]:
    return {**look(meeting, count), **network}


@skills.skill(executor="process", gpus=2)
def both(meeting: str, count: int) -> dict[str, Any]:
    return look(meeting, count)


@skills.skill(executor="process")
def none(meeting: str, count: int) -> dict[str, Any]:
    return look(meeting, count)


@skills.skill(executor="process", gpus=1, batch=Batch(max_size=4, max_wait=0.01))
def in_batches(number: list[int]) -> list[dict[str, Any]]:
    return [{"number": each, "seen": SEEN} for each in number]


@skills.skill(executor="process", gpus=1, max_tasks_per_child=1)
def once() -> dict[str, Any]:
    return {"seen": SEEN, "pid": os.getpid()}


@skills.skill(executor="process", gpus=1)
def crash() -> None:
    os._exit(7)


def use(directory: str, gpus: float) -> dict[str, float]:
    """Return how much of each device is in use meanwhile, this process's share among it."""
    mine = [Path(directory) / f"{device}.{os.getpid()}" for device in (SEEN or "").split(",")]
    for each in mine:
        each.write_text(str(min(gpus, 1)), "ascii")
    found = {
        each.name.partition(".")[0]: sum(_share(other) for other in Path(directory).glob(f"{each.stem}.*"))
        for each in mine
    }
    for each in mine:
        each.unlink()
    return found


def _share(path: Path) -> float:
    try:
        return float(path.read_text("ascii") or 0)
    except FileNotFoundError:  # it has just ended
        return 0.0


@skills.skill(executor="process", gpus=0.5)
def use_half(directory: str) -> dict[str, float]:
    return use(directory, 0.5)


@skills.skill(executor="process", gpus=1)
def use_whole(directory: str) -> dict[str, float]:
    return use(directory, 1)


@skills.skill(executor="process", gpus=2)
def use_both(directory: str) -> dict[str, float]:
    return use(directory, 2)
