"""The worker that is measured. Both sides run this very file: it uses only what both document."""

import os
from typing import Any

from avtomatika_worker import Worker

worker = Worker(worker_type="bench")


@worker.skill()
async def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return {"status": "success", "data": params}


@worker.skill()
def echo_thread(params: dict[str, Any]) -> dict[str, Any]:
    """Return what came, from a thread."""
    return {"status": "success", "data": params}


def echo_process(params: dict[str, Any]) -> dict[str, Any]:
    """Return what came, from a process."""
    return {"status": "success", "data": params}


if os.environ.get("BENCH_PROCESSES"):  # the official worker knows none
    worker.skill("echo_process", executor="process")(echo_process)


def _another(number: int) -> None:
    @worker.skill(f"filler_{number}")
    async def filler(params: dict[str, Any]) -> dict[str, Any]:
        """Do nothing; a catalogue of many skills is what this is for."""
        return {"status": "success", "data": params}


for each in range(int(os.environ.get("BENCH_SKILLS", "2")) - 2):
    _another(each)
