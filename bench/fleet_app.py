"""A part of the fleet of `bench.fleet`: many light workers in a process, each with its own threads and connections."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from avtomatika_worker import Worker


async def pause(seconds: float, number: int) -> dict[str, int]:
    """Do nothing for a while."""
    await asyncio.sleep(seconds)
    return {"number": number}


async def write_report(number: int) -> dict[str, int]:
    """Stand for the skill of that name: a fleet has no object store."""
    return {"number": number}


def light_worker(worker_id: str, variables: dict[str, str]) -> tuple[Worker, dict[str, str]]:
    """Return a worker and its environment."""
    worker = Worker(worker_type="light")
    worker.skill(pause)
    worker.skill(write_report)
    env = {"WORKER_ID": worker_id, "MAX_CONCURRENT_TASKS": "2", "WORKER_RESULT_DURABILITY": "off", **variables}
    return worker, env


async def main(first: int, count: int, variables: dict[str, str]) -> None:
    """Run ``count`` workers until SIGTERM."""
    workers = [light_worker(f"light-{number:05}", variables) for number in range(first, first + count)]

    def stop() -> None:
        for worker, _ in workers:
            worker.request_shutdown()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    async with asyncio.TaskGroup() as group:
        for worker, env in workers:
            group.create_task(worker.main(worker.load_settings(env), health_check=False))
        print("STARTED", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])))
