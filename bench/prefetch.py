"""How long a device is idle between tasks whose files come and go over a slow link: ``python -m bench.prefetch``.

    .venv/bin/python -m bench.prefetch             # about eight minutes; writes results/prefetch.json
    .venv/bin/python -m bench.prefetch --tasks 10 --rounds 1  # does it work at all? Writes nothing

The worker, the object store and the links are processes of their own. There is a link to the store and one to the
orchestrator. Bytes take half of the round trip in each direction, and a new connection takes a round trip; bandwidth is
not limited. "Computing" is sleeping, as for a thread that waits for a GPU. The device is idle when nothing does, from
the first task's start to the last one's end. Of ``--rounds`` measurements the one with the least idle time counts: on a
shared machine the others measure the neighbors. All are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise, product
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from avtomatika_worker import Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord, JobState
from bench.files import BUCKET, MIB, serve
from bench.machine import local_facts

ROOT: Final = Path(__file__).resolve().parents[1]
COMPUTE: Final = 0.2
SIZE: Final = 4 * MIB
"""Of each task's input, and of its output."""

ROUND_TRIPS: Final = (0.05, 0.1)
PREFETCH: Final = (0, 1, 2, 4)
TASKS: Final = 40
ROUNDS: Final = 3
_spawn: Final = multiprocessing.get_context("spawn")


# -------------------------------------------------------------------------------------------------------- the link


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ready: asyncio.Event, delay: float) -> None:
    """Pass bytes on, each ``delay`` seconds after it came."""
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        await ready.wait()
        while True:
            came, data = await queue.get()
            await asyncio.sleep(came + delay - time.monotonic())
            if not data:
                writer.close()
                return
            writer.write(data)

    async with asyncio.TaskGroup() as group:
        group.create_task(deliver())
        while data := await reader.read(2**18):
            queue.put_nowait((time.monotonic(), data))
        queue.put_nowait((time.monotonic(), b""))


def link(target: int, round_trip: float, announce: Connection) -> None:
    """Run a link to a local port; its own port goes to ``announce``."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        ready = asyncio.Event()
        asyncio.get_running_loop().call_later(round_trip, ready.set)
        with contextlib.suppress(ConnectionError, ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, back, ready, round_trip / 2))
                group.create_task(_pass(there, writer, ready, round_trip / 2))

    async def main() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        announce.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------ the worker


def work(prefetch: int, environment: dict[str, str], stop: Connection) -> None:
    """Run a worker with one device until it is to stop."""
    worker = Worker(worker_type="bench", max_concurrent_tasks=10)

    @worker.skill(max_concurrent=1, prefetch=prefetch)
    def compute(source: Path) -> dict[str, Any]:
        """Keep the device busy."""
        data = source.read_bytes()
        began = time.monotonic()
        time.sleep(COMPUTE)
        ended = time.monotonic()
        target = source.with_name("output")
        target.write_bytes(data)
        return {"began": began, "ended": ended, "output": target}

    async def main() -> None:
        running = asyncio.create_task(worker.main())
        await asyncio.to_thread(stop.recv)
        await worker.shutdown()
        await running

    os.environ.update(environment)
    asyncio.run(main())


# ----------------------------------------------------------------------------------------------------- measurement


@asynccontextmanager
async def started(func: Any, *args: Any) -> AsyncIterator[Connection]:
    """Run a function in a process of its own until the block ends; it gets the other end of a pipe besides."""
    mine, its = _spawn.Pipe()
    process = _spawn.Process(target=func, args=(*args, its))
    process.start()
    try:
        yield mine
    finally:
        if func is not work:
            process.terminate()
        await asyncio.to_thread(process.join)


@asynccontextmanager
async def linked(target: int, round_trip: float) -> AsyncIterator[str]:
    """Provide the URL of a link to a local port."""
    async with started(link, target, round_trip) as announce:
        yield f"http://127.0.0.1:{await asyncio.to_thread(announce.recv)}"


async def measure(round_trip: float, prefetch: int, tasks: int, store_port: int, directory: Path) -> dict[str, Any]:
    """Run all tasks with one worker; return what the device did."""
    async with (
        EmbeddedOrchestrator() as orchestrator,
        linked(int(orchestrator.url.rpartition(":")[2]), round_trip) as to_orchestrator,
        linked(store_port, round_trip) as to_store,
    ):
        environment = {
            "WORKER_ID": "bench",
            "ORCHESTRATOR_URL": to_orchestrator,
            "WORKER_TOKEN": orchestrator.token or "",
            "S3_ENDPOINT_URL": to_store,
            "S3_ACCESS_KEY": "a",
            "S3_SECRET_KEY": "b",
            "S3_DEFAULT_BUCKET": BUCKET,
            "TASK_FILES_DIR": str(directory / "files"),
            "WORKER_STATE_DIR": str(directory / "state"),
            "WORKER_ENABLE_HEALTH": "false",
            "LOG_LEVEL": "WARNING",
        }
        async with started(work, prefetch, environment) as stop:
            await orchestrator.wait_for_worker("bench", timeout=60)
            jobs = [orchestrator.submit("compute", {"source": f"s3://{BUCKET}/{n}"}) for n in range(tasks)]
            for job in jobs:
                await job.done(timeout=600)
            stop.send("stop")
    return {"round_trip_s": round_trip, "prefetch": prefetch, **_figures(jobs)}


def _figures(jobs: list[JobRecord]) -> dict[str, Any]:
    assert all(job.state is JobState.FINISHED for job in jobs), [job.describe() for job in jobs]
    spans = sorted((job.result["began"], job.result["ended"]) for job in jobs if job.result)
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), "two computed at a time"
    whole = spans[-1][1] - spans[0][0]
    busy = sum(ended - began for began, ended in spans)
    return {
        "tasks": len(spans),
        "seconds": round(whole, 2),
        "idle_percent": round(100 * (1 - busy / whole), 1),
        "longest_gap_s": round(max(after[0] - before[1] for before, after in pairwise(spans)), 3),
    }


def _fill(port: int, tasks: int) -> None:
    for number in range(tasks):
        url = f"http://127.0.0.1:{port}/{BUCKET}/{number}"
        urllib.request.urlopen(urllib.request.Request(url, os.urandom(SIZE), method="PUT"), timeout=60).close()


async def main() -> None:
    """Measure with and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"tasks for each measurement ({TASKS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"measurements of each kind ({ROUNDS})")
    arguments = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    async with started(serve) as announce:
        port = await asyncio.to_thread(announce.recv)
        await asyncio.to_thread(_fill, port, arguments.tasks)
        for _, round_trip, prefetch in product(range(arguments.rounds), ROUND_TRIPS, PREFETCH):
            with tempfile.TemporaryDirectory() as directory:
                rounds.append(await measure(round_trip, prefetch, arguments.tasks, port, Path(directory)))
            print(json.dumps(rounds[-1]), flush=True)
    if (arguments.tasks, arguments.rounds) == (TASKS, ROUNDS):
        setup = {"compute_s": COMPUTE, "input_mib": SIZE / MIB, "output_mib": SIZE / MIB}
        best = [
            min(
                (each for each in rounds if (each["round_trip_s"], each["prefetch"]) == kind),
                key=itemgetter("idle_percent"),
            )
            for kind in product(ROUND_TRIPS, PREFETCH)
        ]
        found = {"machine": local_facts(), **setup, "best": best, "rounds": rounds}
        (ROOT / "bench" / "results" / "prefetch.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(main())
